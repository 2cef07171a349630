// The page of the service: search items, build a history, and see what is recommended, and why.
const find = (id) => document.getElementById(id);
const WAIT = 150; // milliseconds of rest before a request
const history = []; // {item, title}
let key = sessionStorage.getItem("adrec-key") || "";
let asked = 0;
let cut = 0; // interactions of a user before those that are shown
const SHOWN = 200;

/** Ask the service; throws an Error with the problem's detail. */
async function ask(path, body) {
  const headers = { "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }) };
  const answer = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  const value = await answer.json();
  if (answer.status === 401) {
    find("access").hidden = false;
    throw new Error("Give the API key of this service.");
  }
  if (!answer.ok) throw new Error(value.field ? `${value.detail} (${value.field})` : value.detail);
  return value;
}

/** Return an element with attributes and children; texts are never parsed as HTML. */
function make(tag, attributes, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  found.append(...children);
  return found;
}

function rested(action) {
  let timer;
  return () => { clearTimeout(timer); timer = setTimeout(action, WAIT); };
}

function told(text, wrong = false) {
  find("status").textContent = text;
  find("status").classList.toggle("wrong", wrong);
}

const named = (each) => each.title || String(each.item);

async function showModel() {
  const model = await ask("v1/model");
  const metric = model.accuracy && (Object.entries(model.accuracy).filter(([name]) => name.startsWith("ndcg@")).pop());
  const accuracy = metric ? `${metric[0].toUpperCase()} ${metric[1].toFixed(4)} (${model.protocol})` : "not evaluated";
  find("capped").hidden = !model.category;
  find("category").textContent = model.category || "";
  find("model").textContent =
    `${model.name} ${model.run} (${model.model.slice(0, 8)}) on ${model.data_name}: ` +
    `${model.items.toLocaleString("en")} items; ${accuracy}`;
}

function showHistory() {
  const rows = history.map((each, at) => {
    const remove = make("button", { class: "plain", type: "button", "aria-label": `Remove ${named(each)}` }, "×");
    remove.addEventListener("click", () => { history.splice(at, 1); changed(); find("search").focus(); });
    return make("li", {}, make("span", {}, named(each)), remove);
  });
  find("history").replaceChildren(...rows);
  find("empty").hidden = history.length > 0;
  find("clear").hidden = history.length === 0;
}

function shownItem(each, best) {
  const row = make("li", {}, make("span", { class: "name" }, named(each)));
  const share = each.confidence === null ? "" : `${(100 * each.confidence).toFixed(1)} %`;
  row.append(make("span", { class: "id" }, each.source === "popular" ? "popular" : share));
  if (each.confidence !== null && best > 0) {
    const bar = make("div", {});
    bar.style.width = `${(100 * each.confidence) / best}%`;
    row.append(make("div", { class: "meter", "aria-hidden": "true" }, bar));
  }
  const why = each.why || [];
  if (why.length) {
    const parts = why.flatMap((reason, at) => [
      at ? ", " : "Why: ",
      reason.title || titles.get(reason.item) || String(reason.item),
      " ",
      make("span", { class: reason.change >= 0 ? "up" : "down" }, `${reason.change >= 0 ? "+" : "−"}${Math.abs(reason.change).toFixed(2)}`),
    ]);
    row.append(make("p", { class: "why" }, ...parts));
  }
  return row;
}

const titles = new Map();

async function recommend() {
  const own = ++asked;
  const diversity = Number(find("diversity").value);
  const most = Number(find("per-category").value);
  const body = {
    history: history.map((each) => each.item),
    k: Math.min(50, Math.max(1, Number(find("k").value) || 10)),
    seen: find("seen").value,
    explain: history.length > 1 ? 3 : 0,
    ...((diversity > 0 || most > 0) && { slate: { ...(diversity > 0 && { diversity }), ...(most > 0 && { per_category: most }) } }),
  };
  try {
    const answer = await ask("v1/recommend", body);
    if (own !== asked) return; // a later request is on its way
    const best = Math.max(...answer.items.map((each) => each.confidence ?? 0), 0);
    find("explained").hidden = !answer.items.some((each) => each.why?.length);
    find("items").replaceChildren(...answer.items.map((each) => shownItem(each, best)));
    const unknown = answer.history.interactions - answer.history.known;
    told(
      `${answer.items.length} items for a history of ${answer.history.known}` +
        (cut ? ` (the last of ${(cut + history.length).toLocaleString("en")})` : "") +
        (unknown ? `; ${unknown} of its items are unknown to the model` : ""),
    );
  } catch (error) {
    if (own === asked) told(error.message, true);
  }
}

const recommendSoon = rested(recommend);

function changed() {
  for (const each of history) titles.set(each.item, named(each));
  showHistory();
  recommendSoon();
}

function add(each) {
  history.push(each);
  find("search").value = "";
  closeFound();
  changed();
}

function closeFound() {
  find("found").hidden = true;
  find("found").replaceChildren();
  find("search").setAttribute("aria-expanded", "false");
  find("search").removeAttribute("aria-activedescendant");
}

async function search() {
  const text = find("search").value.trim();
  if (!text) return closeFound();
  try {
    const { items } = await ask(`v1/items?query=${encodeURIComponent(text)}`);
    if (text !== find("search").value.trim()) return;
    const rows = items.slice(0, 20).map((each, at) => {
      const row = make("li", { role: "option", id: `option-${at}`, "aria-selected": "false" }, named(each));
      if (each.title) row.append(make("span", { class: "id" }, ` ${each.item}`));
      row.addEventListener("mousedown", (event) => { event.preventDefault(); add(each); });
      row.chosen = () => add(each);
      return row;
    });
    find("found").replaceChildren(...(rows.length ? rows : [make("li", { role: "option", "aria-disabled": "true" }, "No such item")]));
    find("found").hidden = false;
    find("search").setAttribute("aria-expanded", "true");
    find("search").removeAttribute("aria-activedescendant");
  } catch (error) {
    told(error.message, true);
  }
}

function move(step) {
  const rows = [...find("found").querySelectorAll("[aria-selected]")];
  if (!rows.length) return;
  const now = rows.findIndex((row) => row.getAttribute("aria-selected") === "true");
  const next = now < 0 ? (step > 0 ? 0 : rows.length - 1) : (now + step + rows.length) % rows.length;
  rows.forEach((row, at) => row.setAttribute("aria-selected", String(at === next)));
  rows[next].scrollIntoView({ block: "nearest" });
  find("search").setAttribute("aria-activedescendant", rows[next].id);
}

find("search").addEventListener("input", rested(search));
find("search").addEventListener("blur", closeFound);
find("search").addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); move(event.key === "ArrowDown" ? 1 : -1); }
  if (event.key === "Escape") closeFound();
  if (event.key === "Enter") {
    event.preventDefault();
    const rows = [...find("found").querySelectorAll("[aria-selected]")];
    const chosen = rows.find((row) => row.getAttribute("aria-selected") === "true") || rows[0];
    if (chosen) chosen.chosen();
    else search();
  }
});
find("person").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const found = await ask(`v1/users/${encodeURIComponent(find("user").value)}`);
    const all = found.history.map((item, at) => ({ item, title: found.titles?.[at] }));
    history.splice(0, history.length, ...all.slice(-SHOWN));
    cut = all.length - history.length;
    changed();
  } catch (error) {
    told(error.message, true);
  }
});
find("clear").addEventListener("click", () => { history.length = cut = 0; changed(); find("search").focus(); });
find("diversity").addEventListener("input", () => { find("diversity-value").textContent = find("diversity").value; recommendSoon(); });
for (const id of ["k", "seen", "per-category"]) find(id).addEventListener("input", recommendSoon);
find("access").addEventListener("submit", (event) => {
  event.preventDefault();
  key = find("key").value;
  sessionStorage.setItem("adrec-key", key);
  find("access").hidden = true;
  start();
});

async function start() {
  try {
    await showModel();
    changed();
  } catch (error) {
    told(error.message, true);
  }
}

start();
