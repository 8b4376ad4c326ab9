// What pages do by themselves: refresh what is live, keep times true, copy, keys. Everything works without it, too.
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

function ago(at, now = Date.now()) {
  const seconds = (now - at) / 1000, far = Math.abs(seconds);
  if (far < 5) return "now";
  const units = [["year", 31536000], ["month", 2592000], ["day", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const [name, size] = units.find(([, size]) => far >= size);
  const number = Math.floor(far / size);
  const told = `${number} ${name}${number > 1 && name.length > 3 || name === "day" && number > 1 ? "s" : ""}`;
  return seconds > 0 ? `${told} ago` : `in ${told}`;
}

function tellTimes() {
  for (const time of $$("time[datetime]")) {
    const shown = time.querySelector("[data-ago]");
    if (shown) shown.textContent = ago(Date.parse(time.dateTime));
  }
}

function ready(root) {
  for (const button of $$("[data-copy][hidden]", root)) button.hidden = false;
}

// A region that is live asks for itself again; the server escapes everything in it, and the page's policy runs no script.
function keepLive(region) {
  const every = Number(region.dataset.every) * 1000;
  const lost = Object.assign(document.createElement("p"), {className: "lost", textContent: "No connection; trying again"});
  let shown = "";
  async function refresh() {
    if (document.hidden) return;
    try {
      const answer = await fetch(region.dataset.live, {headers: {"x-background": "1"}, redirect: "error"});
      if (answer.status === 401) return location.reload();
      if (!answer.ok) throw new Error(answer.status);
      const html = await answer.text();
      lost.remove();
      const bare = html.replace(/<span class="ago"[^>]*>[^<]*<\/span>/g, "");
      if (bare === shown || region.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")) return;
      const first = shown === "";
      shown = bare;
      if (first && region.dataset.fresh === undefined) { region.dataset.fresh = ""; }
      const here = region.querySelector("tr.here")?.id, focused = document.activeElement?.closest?.("tr")?.id;
      region.innerHTML = html;
      ready(region);
      if (here) document.getElementById(here)?.classList.add("here");
      if (focused) document.getElementById(focused)?.querySelector("a")?.focus({preventScroll: true});
    } catch { document.body.append(lost); }
  }
  setInterval(refresh, every);
  document.addEventListener("visibilitychange", refresh);
}

document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    event.preventDefault();
    try { await navigator.clipboard.writeText(copy.dataset.copy); } catch { copyByHand(copy.dataset.copy); }
    copy.classList.add("done");
    setTimeout(() => copy.classList.remove("done"), 1200);
    return;
  }
  const row = event.target.closest("tr[data-href]");
  if (row && !event.target.closest("a, button, input, select, form, summary") && !String(getSelection())) location.href = row.dataset.href;
});

function copyByHand(text) { // where the page is not in a secure context there is no clipboard
  const area = Object.assign(document.createElement("textarea"), {value: text});
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) return event.preventDefault();
  if (event.target.method === "post") for (const button of $$("button", event.target)) setTimeout(() => (button.disabled = true));
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, [data-stack]")) return;
  if (event.key === "/") {
    event.preventDefault();
    document.querySelector("[data-find]")?.focus();
  } else if (event.key === "j" || event.key === "k") {
    const rows = $$("tr[data-href]"), at = rows.findIndex((row) => row.classList.contains("here"));
    const next = rows[Math.max(0, Math.min(rows.length - 1, at < 0 ? 0 : at + (event.key === "j" ? 1 : -1)))];
    rows[at]?.classList.remove("here");
    next?.classList.add("here");
    next?.scrollIntoView({block: "nearest"});
  } else if (event.key === "Enter" && event.target === document.body) {
    const row = document.querySelector("tr.here");
    if (row) location.href = row.dataset.href;
  }
});

for (const drop of $$("[data-drop]")) {
  const input = drop.querySelector("input[type=file]");
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files.length) { input.files = event.dataTransfer.files; input.form.requestSubmit(); }
  });
}

ready(document);
tellTimes();
setInterval(tellTimes, 5000);
$$("[data-live]").forEach(keepLive);
