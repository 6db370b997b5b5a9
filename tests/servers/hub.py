"""A small Hugging Face Hub on loopback, for the unmodified clients.

File contents lie on disk; accounts, repositories and commits live as long as the server. Start a
client with HF_ENDPOINT=http://127.0.0.1:PORT and HF_HUB_DISABLE_XET=1, or give HfApi the endpoint.

Paths, fields, status codes and messages follow what the public client (huggingface_hub) sends and
reads. They were not compared with the live Hub.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qs, unquote

import uvicorn
import yaml
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

LFS_SUFFIXES = (".bin", ".h5", ".onnx", ".parquet", ".pt", ".pth", ".safetensors", ".zip")
LFS_SIZE = 10 * 1024 * 1024  # from here on a file is kept with LFS, whatever its name
ATTRIBUTES = "".join(f"*{end} filter=lfs diff=lfs merge=lfs -text\n" for end in LFS_SUFFIXES)
NOBODY = "Invalid username or password."

Entry = dict[str, Any]  # a file as the client reads it: path, size, oid and, for LFS, lfs


class Account(NamedTuple):
    """Whom a token stands for, and its role; only "read" may not write."""

    user: str
    role: str


ACCOUNTS = {
    "write": Account("maker", "write"),
    "read": Account("maker", "read"),
    "fine": Account("maker", "fineGrained"),
    "stranger": Account("stranger", "write"),
}


class Seen(NamedTuple):
    """A request as it came in; the path is decoded and carries the query, if there is one."""

    method: str
    path: str
    body: bytes


class Commit(NamedTuple):
    """A state of all files, and how it came about."""

    sha: str
    title: str
    message: str
    author: str
    date: str
    files: dict[str, Entry]
    parent: Commit | None

    def listing(self) -> dict[str, Entry]:
        """Every file and folder by its path."""
        folders = {str(up) for path in self.files for up in PurePosixPath(path).parents} - {"."}
        about = {"type": "directory", "size": 0}
        found = {path: {**about, "path": path, "oid": sha1(path.encode())} for path in folders}
        return dict(sorted({**found, **self.files}.items()))


@dataclass
class Repo:
    """A repository: its commits by sha, and the refs, names for some of them."""

    kind: str
    id: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def ref(self, revision: str) -> str | None:
        return next((r for r in (revision, f"refs/heads/{revision}") if r in self.refs), None)

    def find(self, revision: str) -> Commit:
        """The commit of a branch, a pull request (refs/pr/1) or a sha."""
        commit = self.commits.get(self.refs[ref] if (ref := self.ref(revision)) else revision)
        if commit is None:
            raise Refusal(404, "Invalid rev id", "RevisionNotFound")
        return commit

    def add(self, ref: str, author: str, header: Entry, files: list[Entry], parent: Any) -> str:
        """Commit these files to a ref."""
        sha = sha1(repr((self.kind, self.id, len(self.commits), header, files)).encode())
        date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        told = (header["summary"], header.get("description", ""), author, date)
        self.commits[sha] = Commit(sha, *told, {file["path"]: file for file in files}, parent)
        self.refs[ref] = sha
        return sha


class Refusal(Exception):
    """An error, told as the client reads it: in the headers and in the body."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str):
        told = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {}) | headers
        self.response = JSONResponse({"error": message}, status, told)


@dataclass
class Call:
    """A request for a handler: what its path names, what it carries and who sent it."""

    named: dict[str, str]
    query: dict[str, str]
    body: bytes
    account: Account | None
    repo: Repo = field(init=False)  # where the path names one

    @property
    def user(self) -> str:
        return self.account.user if self.account else ""

    @property
    def sent(self) -> Any:
        return json.loads(self.body)

    def commit(self) -> Commit:
        return self.repo.find(self.named["revision"] or "main")


Handler = Callable[["Hub", Call], Any]
ROUTES: list[tuple[str, re.Pattern[str], str, Handler]] = []
REPO = "(?P<owner>[^/]+)/(?P<name>[^/]+)"
API = f"/api/(?P<kind>models|datasets|spaces)/{REPO}"
GIT = f"/(?P<kind>datasets/|spaces/|){REPO}"  # only the paths of models have no prefix
REVISION = "/(?P<revision>[^/]+)"


def route(method: str, path: str, right: str = "read") -> Callable[[Handler], Handler]:
    """Note what a handler answers and the right that it takes: read, account, propose or write."""

    def note(handler: Handler) -> Handler:
        ROUTES.append((method, re.compile(path), right, handler))
        return handler

    return note


class Hub:
    """The server's state, for a test to look at and to disturb.

    `tokens` holds a token for every account, `requests` what came in. `faults` holds tuples
    (method, regex, what, times): the next `times` requests with that method whose path the regex
    finds get `what`. That is an HTTP status, "cut" (nothing is done, and the connection is closed
    without an answer) or "half" (it is done, but the connection is closed half way through the
    answer). The times left are counted down in the list.
    """

    def __init__(self, folder: Path, url: str):
        self.folder, self.url = folder, url
        self.tokens = {name: f"hf_{name}".ljust(37, "0") for name in ACCOUNTS}
        self.requests: list[Seen] = []
        self.faults: list[tuple[str, str, int | str, int]] = []
        self.repos: dict[tuple[str, str], Repo] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def files(self, repo_type: str, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """The content of every file, `.gitattributes` included."""
        files = self.repos[repo_type, repo_id].find(revision).files
        return {path: self.blob(file).read_bytes() for path, file in files.items()}

    def commits(self, repo_type: str, repo_id: str, revision: str = "main") -> list[Commit]:
        """The commits of a branch, newest first; the oldest is the hub's own."""
        line = [self.repos[repo_type, repo_id].find(revision)]
        while parent := line[-1].parent:
            line.append(parent)
        return line

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, path = Request(scope, receive), scope["raw_path"].decode()
        query = f"?{request.url.query}" if request.url.query else ""
        seen = Seen(request.method, unquote(path + query), await request.body())
        self.requests.append(seen)
        fault = self.fault(seen)
        if isinstance(fault, int):
            refusal = Refusal(fault, "A fault", **({"Retry-After": "0"} if fault == 429 else {}))
            return await refusal.response(scope, receive, send)
        if fault != "cut":
            response = self.answer(request, path, seen.body)
            if fault is None:
                return await response(scope, receive, send)
            messages: list[Message] = []

            async def collect(message: Message) -> None:
                messages.append(message)

            await response(scope, receive, collect)
            body = b"".join(message["body"] for message in messages[1:])
            half = {"type": "http.response.body", "body": body[: len(body) // 2]}
            await send(messages[0])
            await send({**half, "more_body": True})
        # ASGI has no word for hanging up, so uvicorn's own transport is asked.
        cast(Any, send).__self__.transport.close()
        while (await receive())["type"] != "http.disconnect":
            pass

    def fault(self, seen: Seen) -> int | str | None:
        for place, (method, pattern, what, times) in enumerate(self.faults):
            if times > 0 and method == seen.method and re.search(pattern, seen.path):
                self.faults[place] = (method, pattern, what, times - 1)
                return what
        return None

    def answer(self, request: Request, path: str, body: bytes) -> Response:
        """Check the rights and call the handler. Nothing waits here, so no two calls mix."""
        asked = "GET" if request.method == "HEAD" else request.method
        try:
            account = self.account(request.headers.get("authorization"))
            for method, pattern, right, handler in ROUTES:
                # The path is decoded after the match: a branch may be called refs%2Fpr%2F1.
                if method == asked and (match := pattern.fullmatch(path)):
                    named = {key: unquote(text) for key, text in match.groupdict("").items()}
                    call = Call(named, dict(request.query_params), body, account)
                    if "owner" in named:
                        call.repo = self.repo(call)
                    check(account, "propose" if "create_pr" in call.query else right, named)
                    answer = handler(self, call)
                    return answer if isinstance(answer, Response) else JSONResponse(answer)
            raise Refusal(404, f"Nothing is served here for {request.method}")
        except Refusal as refusal:
            return refusal.response

    def account(self, header: str | None) -> Account | None:
        for name, token in self.tokens.items():
            if header == f"Bearer {token}":
                return ACCOUNTS[name]
        if header:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return None

    def repo(self, call: Call) -> Repo:
        kind = call.named["kind"].strip("/").removesuffix("s") or "model"
        repo = self.repos.get((kind, f"{call.named['owner']}/{call.named['name']}"))
        if repo and (not repo.private or call.user == call.named["owner"]):
            return repo
        status, message = (404, "Repository not found") if call.user else (401, NOBODY)
        raise Refusal(status, message, "RepoNotFound")

    def page(self, repo: Repo) -> str:
        return f"{self.url}/{'' if repo.kind == 'model' else repo.kind + 's/'}{repo.id}"

    def blob(self, file: Entry) -> Path:
        return self.folder / etag(file)

    def keep(self, path: str, content: bytes) -> Entry:
        """Store a regular file."""
        oid = git_oid(content)
        (self.folder / oid).write_bytes(content)
        return {"type": "file", "path": path, "size": len(content), "oid": oid}

    def pointer(self, path: str, sha256: str) -> Entry:
        """A file of LFS, whose content was uploaded before."""
        if not (self.folder / sha256).exists():
            raise Refusal(400, "LFS pointer pointed to a file that does not exist")
        size = (self.folder / sha256).stat().st_size
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        lfs = {"oid": sha256, "size": size, "pointerSize": len(text)}
        oid = git_oid(text.encode())
        return {"type": "file", "path": path, "size": size, "oid": oid, "lfs": lfs}

    # What a client asks: first the account, the card and new repositories.

    @route("GET", "/api/whoami-v2", "account")
    def whoami(self, call: Call) -> Any:
        user, role = cast(Account, call.account)
        auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": role}}
        return {"type": "user", "name": user, "orgs": [], "auth": auth}

    @route("POST", "/api/validate-yaml")
    def validate_yaml(self, call: Call) -> Any:
        try:
            found = card_data(call.sent["content"])
        except (yaml.YAMLError, ValueError) as error:
            return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
        warnings = [] if found else [{"message": "empty or missing yaml metadata in repo card"}]
        return {"errors": [], "warnings": warnings}

    @route("POST", "/api/repos/create", "propose")
    def create(self, call: Call) -> Any:
        sent, kind = call.sent, call.sent.get("type") or "model"
        owner = sent.get("organization") or call.user
        if owner != call.user:
            raise Refusal(403, "You don't have the rights to create a repo in this namespace")
        repo = Repo(kind, f"{owner}/{sent['name']}", sent.get("visibility") == "private")
        told = {"url": self.page(repo), "name": repo.id}
        if (kind, repo.id) in self.repos:
            error = f"You already created this {kind} repo"
            return JSONResponse({**told, "error": error}, 409, {"X-Error-Message": error})
        first = [self.keep(".gitattributes", ATTRIBUTES.encode())]
        repo.add("refs/heads/main", owner, {"summary": "initial commit"}, first, None)
        self.repos[kind, repo.id] = repo
        return told

    # Reading a repository.

    @route("GET", f"{API}(?:/revision{REVISION})?")
    def info(self, call: Call) -> Any:
        commit = call.commit()
        readme = commit.files.get("README.md")
        card = card_data(self.blob(readme).read_text("utf-8")) if readme else {}
        return {
            "id": call.repo.id,
            "author": call.named["owner"],
            "sha": commit.sha,
            "lastModified": commit.date,
            "private": call.repo.private,
            "tags": card.get("tags") or [],
            "pipeline_tag": card.get("pipeline_tag"),
            "cardData": card or None,
            "siblings": [{"rfilename": path} for path in commit.files],
        }

    @route("GET", f"{API}/tree{REVISION}(?:/(?P<path>.+))?")
    def tree(self, call: Call) -> Any:
        listing, folder = call.commit().listing(), call.named["path"]
        if folder and listing.get(folder, {}).get("type") != "directory":
            raise Refusal(404, "There is no such folder", "EntryNotFound")
        start = f"{folder}/" if folder else ""
        deep = call.query.get("recursive", "").lower() in ("1", "true")
        inside = [path for path in listing if path.startswith(start)]
        return [listing[path] for path in inside if deep or "/" not in path.removeprefix(start)]

    @route("POST", f"{API}/paths-info{REVISION}")
    def paths_info(self, call: Call) -> Any:
        listing, form = call.commit().listing(), parse_qs(call.body.decode())
        return [listing[path] for path in form.get("paths", []) if path in listing]

    @route("GET", f"{GIT}/resolve{REVISION}/(?P<path>.+)")
    def resolve(self, call: Call) -> Any:
        commit, path = call.commit(), call.named["path"]
        headers = {"X-Repo-Commit": commit.sha}
        if path not in commit.files:
            raise Refusal(404, "Entry not found", "EntryNotFound", **headers)
        headers["ETag"] = f'"{etag(commit.files[path])}"'
        # Answers HEAD too, and a range.
        return FileResponse(self.blob(commit.files[path]), headers=headers, media_type="text/plain")

    @route("GET", f"{API}/commits{REVISION}")
    def list_commits(self, call: Call) -> Any:
        told = []
        for commit in self.commits(call.repo.kind, call.repo.id, call.named["revision"]):
            about = {"title": commit.title, "message": commit.message, "date": commit.date}
            told.append({"id": commit.sha, **about, "authors": [{"user": commit.author}]})
        return told

    @route("GET", f"{API}/refs")
    def list_refs(self, call: Call) -> Any:
        found: dict[str, list[Entry]] = {"heads": [], "pr": []}
        for ref, sha in call.repo.refs.items():
            name = ref.removeprefix("refs/heads/")
            found[ref.split("/")[1]].append({"name": name, "ref": ref, "targetCommit": sha})
        told = {"branches": found["heads"], "pullRequests": found["pr"]}
        return {**told, "tags": [], "converts": []}

    # Writing to a repository.

    @route("POST", f"{API}/branch/(?P<branch>.+)", "write")
    def create_branch(self, call: Call) -> Any:
        ref = f"refs/heads/{call.named['branch']}"
        if ref in call.repo.refs:
            raise Refusal(409, "Reference already exists")
        call.repo.refs[ref] = call.repo.find(call.sent.get("startingPoint") or "main").sha
        return {}

    @route("POST", f"{API}/preupload{REVISION}", "write")
    def preupload(self, call: Call) -> Any:
        there, answers = call.commit().files, []
        for file in call.sent["files"]:
            path, binary = file["path"], b"\0" in base64.b64decode(file["sample"])
            lfs = path.endswith(LFS_SUFFIXES) or file["size"] >= LFS_SIZE or binary
            answer = {"path": path, "uploadMode": "lfs" if lfs else "regular"}
            # The client leaves out what has this oid already.
            oid = {"oid": etag(there[path])} if path in there else {}
            answers.append({**answer, **oid, "shouldIgnore": False})
        return {"files": answers}

    @route("POST", f"{GIT}.git/info/lfs/objects/batch", "propose")
    def lfs_batch(self, call: Call) -> Any:
        objects = call.sent["objects"]
        for wanted in objects:
            if not (self.folder / wanted["oid"]).exists():
                upload, verify = f"{self.url}/lfs/{wanted['oid']}", f"{self.url}/lfs-verify"
                wanted["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
        return {"transfer": "basic", "objects": objects}

    @route("PUT", "/lfs/(?P<oid>[0-9a-f]{64})")
    def lfs_put(self, call: Call) -> Any:
        if hashlib.sha256(call.body).hexdigest() != call.named["oid"]:
            raise Refusal(400, "The content is not what its sha256 says")
        (self.folder / call.named["oid"]).write_bytes(call.body)
        return {}

    @route("POST", "/lfs-verify", "account")
    def lfs_verify(self, call: Call) -> Any:
        if self.pointer("", call.sent["oid"])["size"] != call.sent["size"]:
            raise Refusal(400, "The object has another size")
        return {}

    @route("POST", f"{API}/commit{REVISION}", "write")
    def commit(self, call: Call) -> Any:
        repo, parent, ref = call.repo, call.commit(), call.repo.ref(call.named["revision"])
        lines = [json.loads(line) for line in call.body.splitlines()]
        header, *operations = [(line["key"], line["value"]) for line in lines]
        if not parent.sha.startswith(header[1].get("parentCommit", "")):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        if proposed := "create_pr" in call.query:
            ref = f"refs/pr/{1 + sum(ref.startswith('refs/pr/') for ref in repo.refs)}"
        if ref is None:
            raise Refusal(400, "A commit goes to a branch or to a pull request")
        files = dict(parent.files)
        for what, value in operations:
            path = value["path"]
            if what == "file":
                files[path] = self.keep(path, base64.b64decode(value["content"]))
            elif what == "lfsFile":
                files[path] = self.pointer(path, value["oid"])
            elif what == "deletedFolder":
                inside = path.rstrip("/") + "/"
                files = {path: file for path, file in files.items() if not path.startswith(inside)}
            elif files.pop(path, None) is None:
                raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
        sha = repo.add(ref, call.user, header[1], [files[path] for path in sorted(files)], parent)
        told = {"commitOid": sha, "commitUrl": f"{self.page(repo)}/commit/{sha}"}
        if proposed:
            told["pullRequestUrl"] = f"{self.page(repo)}/discussions/{ref.rpartition('/')[2]}"
        return told


def check(account: Account | None, right: str, named: dict[str, str]) -> None:
    """Refuse who hasn't the right."""
    if right == "read":
        return
    if account is None:
        # Over https the client takes any 401 for a missing repository; over http it is told so.
        raise Refusal(401, NOBODY, "RepoNotFound" if "owner" in named else "")
    if right != "account" and account.role == "read":
        raise Refusal(403, "This token may not write")
    if right == "write" and account.user != named["owner"]:
        raise Refusal(403, "You don't have the rights to write in this namespace")


def card_data(text: str) -> Entry:
    """The metadata at the top of a README.md."""
    block = re.match(r"\s*---[ \t]*\r?\n(.*?)^---\s*$", text, re.DOTALL | re.MULTILINE)
    found = yaml.safe_load(block[1]) if block else None
    if found is not None and not isinstance(found, dict):
        raise ValueError("the metadata should be a mapping")
    return json.loads(json.dumps(found or {}, default=str))  # a date becomes text


def etag(file: Entry) -> str:
    """The id of a content and the name it is kept under: sha256 with LFS, git's sha1 otherwise."""
    return file.get("lfs", file)["oid"]


def git_oid(content: bytes) -> str:
    return sha1(b"blob %d\0" % len(content) + content)


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def serving(folder: Path, port: int = 0) -> Iterator[Hub]:
    """Run a hub in a thread for as long as the block lasts."""
    # It listens from here on, so nobody has to wait until uvicorn is up.
    listener = socket.create_server(("127.0.0.1", port))
    hub = Hub(folder, f"http://127.0.0.1:{listener.getsockname()[1]}")
    server = uvicorn.Server(uvicorn.Config(hub, http="h11", lifespan="off", log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.should_exit = True
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description="A small Hugging Face Hub on loopback")
    parser.add_argument("--folder", type=Path, required=True, help="where contents are kept")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options = parser.parse_args()
    with serving(options.folder, options.port) as hub, suppress(KeyboardInterrupt):
        print(f"listening on {hub.url}", flush=True)
        for name, token in hub.tokens.items():
            print(f"{name}: {token}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
