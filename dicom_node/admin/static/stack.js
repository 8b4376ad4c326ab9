// The stack of a result page: one slice and its overlay at a time, the next ones fetched ahead.
const stack = document.querySelector("[data-stack]");
const screen = stack.querySelector(".screen"), slider = stack.querySelector("[data-slider]");
const choice = stack.querySelector("[data-window]"), toggle = stack.querySelector("[data-toggle]");
const position = stack.querySelector("[data-position]");
const base = stack.dataset.stack, count = Number(stack.dataset.count), marked = stack.dataset.overlay === "yes";
const kept = new Map(), most = 160;
let at = Number(stack.dataset.start), wheel = 0;

function address(kind, n) {
  return kind === "overlay" ? `${base}/overlay/${n}.png` : `${base}/slices/${n}.png?window=${encodeURIComponent(choice.value)}`;
}

function picture(kind, n) { // an element is kept as long as it may be wanted again: nothing is stored by the browser
  const source = address(kind, n);
  let image = kept.get(source);
  if (!image) {
    image = new Image(512, 512);
    image.className = kind;
    image.alt = kind === "slice" ? `Slice ${n + 1} of ${count}` : "";
    image.draggable = false;
    image.src = source;
    if (kept.size >= most) kept.delete(kept.keys().next().value);
  } else kept.delete(source);
  kept.set(source, image);
  return image;
}

async function show(n) {
  at = Math.max(0, Math.min(count - 1, n));
  slider.value = at + 1;
  position.textContent = `${at + 1} / ${count}`;
  const wanted = at, kinds = marked ? ["slice", "overlay"] : ["slice"];
  const images = kinds.map((kind) => picture(kind, at));
  await Promise.all(images.map((image) => image.decode().catch(() => null)));
  if (wanted !== at) return;
  for (const image of images) {
    const old = screen.querySelector(`img.${image.className}`);
    if (old !== image) old ? old.replaceWith(image) : screen.prepend(image);
  }
  for (const ahead of [1, -1, 2, -2, 3]) {
    const n = at + ahead;
    if (n >= 0 && n < count) for (const kind of kinds) picture(kind, n);
  }
}

const steps = {ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 10, PageUp: -10, Home: -1e6, End: 1e6};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=range]), select, textarea")) return;
  const inside = stack.contains(event.target);
  if (event.key in steps && inside) {
    event.preventDefault();
    show(at + steps[event.key]);
  } else if (event.key === "o" && toggle) {
    toggle.checked = !toggle.checked;
    toggle.dispatchEvent(new Event("change"));
  } else if (/^[1-9]$/.test(event.key) && choice.options[event.key - 1]) {
    choice.selectedIndex = event.key - 1;
    show(at);
  }
});
screen.addEventListener("wheel", (event) => {
  event.preventDefault();
  wheel += event.deltaY;
  if (Math.abs(wheel) >= 40) { show(at + Math.sign(wheel)); wheel = 0; }
}, {passive: false});
let held = null;
screen.addEventListener("pointerdown", (event) => { held = {y: event.clientY, at}; screen.setPointerCapture(event.pointerId); stack.focus({preventScroll: true}); });
screen.addEventListener("pointermove", (event) => { if (held) show(held.at + Math.round((event.clientY - held.y) / 4)); });
screen.addEventListener("pointerup", () => { held = null; });
slider.addEventListener("input", () => show(Number(slider.value) - 1));
choice.addEventListener("change", () => show(at));
toggle?.addEventListener("change", () => stack.classList.toggle("bare", !toggle.checked));
for (const button of document.querySelectorAll("[data-go]")) {
  button.hidden = false;
  button.addEventListener("click", () => { show(Number(button.dataset.go)); stack.focus(); stack.scrollIntoView({block: "nearest"}); });
}
show(at);
stack.focus({preventScroll: true});
