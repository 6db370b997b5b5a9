"""A small Hugging Face Hub on loopback, in memory, for the unmodified clients.

    with serving() as hub:
        HfApi(endpoint=hub.url, token=hub.tokens["write"]).create_repo("maker/small")

A client reads its environment when it is imported: start it with HF_ENDPOINT=hub.url and
HF_HUB_DISABLE_XET=1. Paths, fields, status codes and messages follow what the public client
(huggingface_hub) sends and reads. They were not compared with the live Hub.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.servers.loopback import Handler, Json, Server, running

LFS_SUFFIXES = (".bin", ".onnx", ".parquet", ".png", ".safetensors")
LFS_SIZE = 10 * 1024 * 1024  # from here on a file is kept with LFS, whatever its name
# Whom a token stands for, and its role; only "read" may not write.
ACCOUNTS = {
    "write": ("maker", "write"),
    "read": ("maker", "read"),
    "fine": ("maker", "fineGrained"),
    "stranger": ("stranger", "write"),
}


class Seen(NamedTuple):
    """A request as it came in; the path is decoded and carries the query, if there is one."""

    method: str
    path: str
    body: bytes


class Commit(NamedTuple):
    """A state of all files (as the client reads them), and how it came about."""

    sha: str
    title: str
    message: str
    files: dict[str, Json]
    parent: Commit | None


@dataclass
class Repo:
    """A repository: its commits by sha, and the branches and pull requests, names for some."""

    kind: str
    id: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def find(self, revision: str) -> Commit:
        commit = self.commits.get(self.refs.get(revision, revision))
        if commit is None:
            raise Refusal(404, "Invalid rev id", "RevisionNotFound")
        return commit

    def add(self, ref: str, header: Json, files: dict[str, Json], parent: Commit | None) -> str:
        sha = sha1(repr((self.kind, self.id, len(self.commits), header, files)).encode())
        told = (header["summary"], header.get("description", ""))
        self.commits[sha] = Commit(sha, *told, files, parent)
        self.refs[ref] = sha
        return sha


class Refusal(Exception):
    """An error as the client reads it: in the headers and in the body."""

    def __init__(self, status: int, message: str, code: str = "", **more: Any) -> None:
        self.status, self.body = status, {"error": message, **more}
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})


class Hub(Server):
    """The server's state, for a test to look at and to disturb.

    `tokens` holds a token for every account, `requests` what came in, `blobs` contents by their
    id. `faults` holds tuples (method, regex, what, times): the next `times` requests with that
    method whose path the regex finds get `what`. That is an HTTP status, "cut" (nothing is done,
    and the connection is closed without an answer) or "half" (it is done, but the connection is
    closed half way through the answer). The times left are counted down in the list.
    """

    def __init__(self) -> None:
        super().__init__(HubHandler)
        self.tokens = {name: f"hf_{name}".ljust(37, "0") for name in ACCOUNTS}
        self.requests: list[Seen] = []
        self.faults: list[tuple[str, str, int | str, int]] = []
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs: dict[str, bytes] = {}

    def files(self, repo_type: str, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """The content of every file."""
        files = self.repos[repo_type, repo_id].find(revision).files
        return {path: self.blobs[etag(file)] for path, file in files.items()}

    def commits(self, repo_type: str, repo_id: str, revision: str = "main") -> list[Commit]:
        """The commits of a branch, newest first; the oldest is the hub's own."""
        line = [self.repos[repo_type, repo_id].find(revision)]
        while parent := line[-1].parent:
            line.append(parent)
        return line

    def put(self, repo_type: str, repo_id: str, files: dict[str, bytes]) -> None:
        """Make a repository that holds these files, as if its owner had uploaded them."""
        repo = self.repos[repo_type, repo_id] = Repo(repo_type, repo_id, private=False)
        kept = {path: self.keep(path, content) for path, content in files.items()}
        repo.add("main", {"summary": "initial commit"}, kept, None)

    def keep(self, path: str, content: bytes) -> Json:
        """Store a regular file."""
        oid = sha1(b"blob %d\0" % len(content) + content)
        self.blobs[oid] = content
        return {"type": "file", "path": path, "size": len(content), "oid": oid}

    def fault(self, seen: Seen) -> int | str | None:
        for place, (method, pattern, what, times) in enumerate(self.faults):
            if times > 0 and method == seen.method and re.search(pattern, seen.path):
                self.faults[place] = (method, pattern, what, times - 1)
                return what
        return None


ROUTES: list[tuple[str, re.Pattern[str], str, Callable[[HubHandler], Any]]] = []
REPO = "(?P<owner>[^/]+)/(?P<name>[^/]+)"
API = f"/api/(?P<kind>models|datasets|spaces)/{REPO}"
GIT = f"/(?P<kind>datasets/|spaces/|){REPO}"  # only the paths of models have no prefix
REVISION = "/(?P<revision>[^/]+)"


def route(method: str, path: str, right: str = "read") -> Callable[..., Any]:
    """Note what a function answers (JSON, or bytes and headers), and the right that it takes.

    Rights: read, account, propose or write.
    """

    def note(function: Callable[[HubHandler], Any]) -> Callable[[HubHandler], Any]:
        ROUTES.append((method, re.compile(path), right, function))
        return function

    return note


class HubHandler(Handler):
    server: Hub
    named: dict[str, str]  # what the path names
    query: dict[str, list[str]]
    body: bytes
    user: str
    role: str
    repo: Repo  # where the path names one

    def respond(self) -> None:
        self.body = self.content()
        seen = Seen(self.command, unquote(self.path), self.body)
        self.server.requests.append(seen)
        fault = self.server.fault(seen)
        if fault == "cut":
            return
        try:
            if isinstance(fault, int):
                raise Refusal(fault, "A fault")
            answer = self.find()
        except Refusal as refusal:
            self.give(refusal.status, refusal.body, more=refusal.headers)
        else:
            data, headers = answer if isinstance(answer, tuple) else (answer, {})
            self.give(200, data, half=fault == "half", more=headers)

    do_GET = do_HEAD = do_POST = do_PUT = respond  # the names that http.server calls

    def find(self) -> Any:
        """Look who asks, check the rights and follow the route."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        name = next((name for name, known in self.server.tokens.items() if known == token), "")
        if token and not name:
            raise Refusal(401, "Invalid credentials in Authorization header")
        self.user, self.role = ACCOUNTS.get(name, ("", ""))
        asked, address = "GET" if self.command == "HEAD" else self.command, urlsplit(self.path)
        for method, pattern, right, function in ROUTES:
            # The path is decoded after the match: a branch may be called refs%2Fpr%2F1.
            if method == asked and (match := pattern.fullmatch(address.path)):
                self.named = {key: unquote(text) for key, text in match.groupdict("").items()}
                self.query = parse_qs(address.query)
                self.check("propose" if "create_pr" in self.query else right)
                return function(self)
        raise Refusal(404, f"Nothing is served here for {asked}")

    def check(self, right: str) -> None:
        """Refuse who hasn't the right, or may not even know of the repository."""
        owner = self.named.get("owner", "")
        if owner:
            kind = self.named["kind"].strip("/").removesuffix("s") or "model"
            repo = self.server.repos.get((kind, f"{owner}/{self.named['name']}"))
            if repo is None or (repo.private and self.user != owner):
                # Over https the client takes any 401 for this; over http it has to be told.
                status = 404 if self.user else 401
                raise Refusal(status, "Repository not found", "RepoNotFound")
            self.repo = repo
        if right != "read" and not self.user:
            code = "RepoNotFound" if owner else ""
            raise Refusal(401, "Invalid username or password.", code)
        if right in ("propose", "write") and self.role == "read":
            raise Refusal(403, "This token may not write")
        if right == "write" and self.user != owner:
            raise Refusal(403, "You don't have the rights to write in this namespace")

    @property
    def sent(self) -> Any:
        return json.loads(self.body)

    @property
    def commit(self) -> Commit:
        return self.repo.find(self.named["revision"] or "main")

    def page(self, repo: Repo) -> str:
        return f"{self.server.url}/{'' if repo.kind == 'model' else repo.kind + 's/'}{repo.id}"

    def pointer(self, path: str, sha256: str) -> Json:
        """A file of LFS, whose content was uploaded before."""
        if sha256 not in self.server.blobs:
            raise Refusal(400, "LFS pointer pointed to a file that does not exist")
        file = {"type": "file", "path": path, "size": len(self.server.blobs[sha256])}
        lfs = {"oid": sha256, "size": file["size"], "pointerSize": 130}
        return {**file, "oid": sha1(sha256.encode()), "lfs": lfs}

    # What a client asks: first the account, the card and new repositories.

    @route("GET", "/api/whoami-v2", "account")
    def whoami(self) -> Any:
        auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": self.role}}
        return {"type": "user", "name": self.user, "orgs": [], "auth": auth}

    @route("POST", "/api/validate-yaml")
    def validate_yaml(self) -> Any:
        block = re.match(r"---\r?\n(.*?)^---\s*$", self.sent["content"], re.DOTALL | re.MULTILINE)
        errors = []
        try:
            if block and not isinstance(yaml.safe_load(block[1]), dict):
                errors = [{"message": "the metadata should be a mapping"}]
        except yaml.YAMLError as error:
            errors = [{"message": str(error)}]
        warnings = [] if block else [{"message": "empty or missing yaml metadata in repo card"}]
        if errors:
            raise Refusal(400, errors[0]["message"], errors=errors, warnings=warnings)
        return {"errors": errors, "warnings": warnings}

    @route("POST", "/api/repos/create", "propose")
    def create(self) -> Any:
        kind, owner = self.sent.get("type") or "model", self.sent.get("organization") or self.user
        if owner != self.user:
            raise Refusal(403, "You don't have the rights to create a repo in this namespace")
        private = self.sent.get("visibility") == "private"
        repo = Repo(kind, f"{owner}/{self.sent['name']}", private)
        if (kind, repo.id) in self.server.repos:
            raise Refusal(409, f"You already created this {kind} repo", url=self.page(repo))
        self.server.put(kind, repo.id, {".gitattributes": b"*.safetensors filter=lfs -text\n"})
        self.server.repos[kind, repo.id].private = private
        return {"url": self.page(repo), "name": repo.id}

    # Reading a repository.

    @route("GET", f"{API}(?:/revision{REVISION})?")
    def info(self) -> Any:
        told = {"id": self.repo.id, "sha": self.commit.sha, "private": self.repo.private}
        return {**told, "siblings": [{"rfilename": path} for path in self.commit.files]}

    def listing(self) -> dict[str, Json]:
        """Every file and folder by its path."""
        files = self.commit.files
        folders = {str(up) for path in files for up in PurePosixPath(path).parents} - {"."}
        about = {"type": "directory", "size": 0}
        found = {path: {**about, "path": path, "oid": sha1(path.encode())} for path in folders}
        return dict(sorted({**found, **files}.items()))

    @route("GET", f"{API}/tree{REVISION}(?:/(?P<path>.+))?")
    def tree(self) -> Any:
        listing, folder = self.listing(), self.named["path"]
        if folder and listing.get(folder, {}).get("type") != "directory":
            raise Refusal(404, "There is no such folder", "EntryNotFound")
        start = f"{folder}/" if folder else ""
        deep = self.query.get("recursive", [""])[0].lower() in ("1", "true")
        inside = [path for path in listing if path.startswith(start)]
        return [listing[path] for path in inside if deep or "/" not in path.removeprefix(start)]

    @route("POST", f"{API}/paths-info{REVISION}")
    def paths_info(self) -> Any:
        listing, asked = self.listing(), parse_qs(self.body.decode()).get("paths", [])
        return [listing[path] for path in asked if path in listing]

    @route("GET", f"{GIT}/resolve{REVISION}/(?P<path>.+)")
    def resolve(self) -> Any:
        file = self.commit.files.get(self.named["path"])
        if file is None:
            raise Refusal(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": self.commit.sha, "ETag": f'"{etag(file)}"'}
        return self.server.blobs[etag(file)], headers

    # Writing to a repository.

    @route("POST", f"{API}/branch/(?P<branch>.+)", "write")
    def create_branch(self) -> Any:
        if self.named["branch"] in self.repo.refs:
            raise Refusal(409, "Reference already exists")
        start = self.sent.get("startingPoint") or "main"
        self.repo.refs[self.named["branch"]] = self.repo.find(start).sha
        return {}

    @route("POST", f"{API}/preupload{REVISION}", "write")
    def preupload(self) -> Any:
        there, answers = self.commit.files, []
        for file in self.sent["files"]:
            path, binary = file["path"], b"\0" in base64.b64decode(file["sample"])
            lfs = path.endswith(LFS_SUFFIXES) or file["size"] >= LFS_SIZE or binary
            answer = {"path": path, "uploadMode": "lfs" if lfs else "regular"}
            # The client leaves out what has this oid already.
            oid = {"oid": etag(there[path])} if path in there else {}
            answers.append({**answer, **oid, "shouldIgnore": False})
        return {"files": answers}

    @route("POST", f"{GIT}.git/info/lfs/objects/batch", "propose")
    def lfs_batch(self) -> Any:
        objects = self.sent["objects"]
        for wanted in objects:
            if wanted["oid"] not in self.server.blobs:
                href = f"{self.server.url}/lfs/{wanted['oid']}"
                wanted["actions"] = {"upload": {"href": href}}
        return {"transfer": "basic", "objects": objects}

    @route("PUT", "/lfs/(?P<oid>[0-9a-f]{64})")
    def lfs_put(self) -> Any:
        if hashlib.sha256(self.body).hexdigest() != self.named["oid"]:
            raise Refusal(400, "The content is not what its sha256 says")
        self.server.blobs[self.named["oid"]] = self.body
        return {}

    @route("POST", f"{API}/commit{REVISION}", "write")
    def make_commit(self) -> Any:
        parent, ref = self.commit, self.named["revision"]
        lines = [json.loads(line) for line in self.body.splitlines()]
        header, *operations = [(line["key"], line["value"]) for line in lines]
        if not parent.sha.startswith(header[1].get("parentCommit", "")):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        if proposed := "create_pr" in self.query:
            ref = f"refs/pr/{1 + sum(ref.startswith('refs/pr/') for ref in self.repo.refs)}"
        files = dict(parent.files)
        for what, value in operations:
            path = value["path"]
            if what == "file":
                files[path] = self.server.keep(path, base64.b64decode(value["content"]))
            elif what == "lfsFile":
                files[path] = self.pointer(path, value["oid"])
            elif what == "deletedFolder":
                inside = path.rstrip("/") + "/"
                files = {path: file for path, file in files.items() if not path.startswith(inside)}
            elif files.pop(path, None) is None:
                raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
        sha = self.repo.add(ref, header[1], dict(sorted(files.items())), parent)
        page = self.page(self.repo)
        told = {"commitOid": sha, "commitUrl": f"{page}/commit/{sha}"}
        if proposed:
            told["pullRequestUrl"] = f"{page}/discussions/{ref.rpartition('/')[2]}"
        return told


def etag(file: Json) -> str:
    """The id of a content: sha256 with LFS, git's sha1 otherwise."""
    return file.get("lfs", file)["oid"]


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """Run a hub for as long as the block lasts."""
    with running(Hub()) as hub:
        yield hub
