// A key does what the button of its name does, but while somebody writes.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const at = document.activeElement;
  const writes = at && (at.tagName === "TEXTAREA" || (at.tagName === "INPUT" && at.type !== "checkbox"));
  if (writes && event.key !== "Escape") return;
  if (event.key === "Escape") { if (at) at.blur(); return; }
  const labels = document.querySelectorAll("#labels input[type=checkbox]");
  const button = document.getElementById("key-" + event.key);
  const target = button || labels[Number(event.key) - 1];
  if (!target) return;
  event.preventDefault();
  if (at) at.blur();
  target.click();
});
// A click on a word of the text goes through a text box, which gradio listens to.
document.addEventListener("click", (event) => {
  const word = event.target.closest && event.target.closest("#row [data-word]");
  const box = document.querySelector("#clicked textarea, #clicked input");
  if (!word || !box) return;
  const prototype = box.tagName === "TEXTAREA" ? HTMLTextAreaElement : HTMLInputElement;
  const set = Object.getOwnPropertyDescriptor(prototype.prototype, "value").set;
  set.call(box, Date.now() + " " + word.textContent);
  box.dispatchEvent(new Event("input", { bubbles: true }));
});
