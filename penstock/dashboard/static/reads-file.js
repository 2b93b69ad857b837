// A file is read into a field, as text or as base64: forms carry text alone.
const base64 = (buffer) => {
  const bytes = new Uint8Array(buffer);
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  }
  return btoa(text);
};

const reveal = () => {
  for (const one of document.querySelectorAll("[data-reads-into][hidden]")) one.hidden = false;
};

document.addEventListener("change", async (event) => {
  const label = event.target.closest?.("[data-reads-into]");
  const file = event.target.files?.[0];
  if (!label || !file) return;
  const field = document.getElementById(label.dataset.readsInto);
  field.value = label.dataset.readsAs === "text" ? await file.text() : base64(await file.arrayBuffer());
  field.dispatchEvent(new Event("input", { bubbles: true }));
});
document.addEventListener("htmx:load", reveal);
reveal();
