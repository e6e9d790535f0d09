// What a page does beyond HTML: it stays live, says how long ago, copies, completes, uploads in pieces.
// Everything here may be absent: the pages work without it, but for being live.

const $ = (selector, of = document) => of.querySelector(selector);
const all = (selector, of = document) => [...of.querySelectorAll(selector)];
const csrf = document.body.dataset.csrf;

async function ask(url, options = {}) {
  const headers = { Accept: "application/json", ...(csrf ? { "X-CSRF": csrf } : {}), ...options.headers };
  const answer = await fetch(url, { ...options, headers });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(body.detail || `HTTP ${answer.status}`), { status: answer.status });
  return body;
}

// --- how long ago --------------------------------------------------------------------------------

const spans = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [Infinity, 86400, "days"]];

function since(time) {
  const seconds = Math.round((Date.now() - Date.parse(time.dateTime)) / 1000);
  const size = Math.abs(seconds);
  const [, each, unit] = spans.find(([limit]) => size < limit);
  const text = size < 2 ? "now" : `${seconds < 0 ? "in " : ""}${Math.round(size / each)} ${unit}${seconds < 0 ? "" : " ago"}`;
  if (!time.title) time.title = time.textContent;
  if (time.textContent !== text) time.textContent = text;
}

const tell = () => all("time[datetime]").forEach(since);

// --- morph: make an element's inside be this HTML, touching only what differs ----------------------

function morph(into, html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  children(into, template.content);
}

function children(old, fresh) {
  const wanted = [...fresh.childNodes];
  wanted.forEach((node, at) => {
    const here = old.childNodes[at];
    if (!here) old.append(node.cloneNode(true));
    else if (here.nodeType !== node.nodeType || here.nodeName !== node.nodeName) here.replaceWith(node.cloneNode(true));
    else if (node.nodeType === Node.TEXT_NODE) { if (here.data !== node.data) here.data = node.data; }
    else if (node.nodeName === "TIME" && here.dateTime === node.dateTime) return;
    else { attributes(here, node); children(here, node); }
  });
  while (old.childNodes.length > wanted.length) old.lastChild.remove();
}

function attributes(old, fresh) {
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
}

// --- the live page ---------------------------------------------------------------------------------

function follow(page) {
  const stands = $("#signed-out");
  let source = null, over = false;
  const verbs = $("[data-verbs]");
  const allowed = verbs ? JSON.parse(verbs.dataset.verbs) : {};

  const shows = (status) => {
    page.dataset.status = status;
    for (const form of all("[data-verb]")) form.hidden = !(allowed[status] || []).includes(form.dataset.verb);
  };
  const begin = () => {
    if (over || (source && source.readyState !== EventSource.CLOSED)) return;
    source = new EventSource(page.dataset.live);
    source.onopen = () => { page.dataset.line = "open"; stands.hidden = true; };
    source.onmessage = ({ data }) => {
      const frame = JSON.parse(data);
      for (const [name, html] of Object.entries(frame.parts)) morph($(`#live-${name}`), html);
      shows(frame.status);
      tell();
    };
    source.addEventListener("over", () => { over = ended(); source.close(); });
    source.onerror = () => {
      page.dataset.line = "down";
      if (source.readyState === EventSource.CLOSED) check();  // refused, not broken: ask why
    };
  };
  const ended = () => ["complete", "failed", "aborted"].includes(page.dataset.status);
  const check = async () => {
    try { await ask(page.dataset.live, { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(1500) }); }
    catch (error) { if (error.status === 401) { stands.hidden = false; return; } }
    setTimeout(begin, 3000);
  };
  // A page that slept, or was offline, does not wait for its next try.
  document.addEventListener("visibilitychange", () => document.hidden || begin());
  addEventListener("online", begin);
  addEventListener("pageshow", (event) => event.persisted && begin());
  begin();
}

// --- completion in a filter ------------------------------------------------------------------------

function completes(input) {
  const list = document.createElement("ul");
  list.className = "choice-list"; list.id = `${input.name}-choices`; list.role = "listbox"; list.hidden = true;
  list.setAttribute("aria-label", "What could stand next");
  input.parentElement.classList.add("has-choices");
  input.after(list);
  for (const [name, value] of Object.entries({ role: "combobox", "aria-autocomplete": "list", "aria-controls": list.id, "aria-expanded": "false" })) input.setAttribute(name, value);
  let at = -1, stays = "", turn = 0;
  const close = () => { list.hidden = true; at = -1; input.setAttribute("aria-expanded", "false"); input.removeAttribute("aria-activedescendant"); };
  const choose = (word) => { input.value = `${stays}${word}${word.endsWith("(") ? "" : " "}`; input.focus(); show(); };
  const mark = (next) => {
    at = (next + list.children.length) % list.children.length;
    all("li", list).forEach((item, n) => item.setAttribute("aria-selected", n === at));
    input.setAttribute("aria-activedescendant", list.children[at].id);
    list.children[at].scrollIntoView({ block: "nearest" });
  };
  const show = async () => {
    const mine = ++turn;
    const found = await ask(`${input.dataset.complete}?q=${encodeURIComponent(input.value)}`).catch(() => null);
    if (!found || mine !== turn) return;
    const marked = at >= 0 ? list.children[at].textContent : null;  // what came late takes nobody's choice away
    stays = found.stays;
    list.replaceChildren(...found.words.map((word, n) => {
      const item = document.createElement("li");
      item.id = `${list.id}-${n}`; item.role = "option"; item.textContent = word;
      item.setAttribute("aria-selected", "false");
      item.addEventListener("mousedown", (event) => { event.preventDefault(); choose(word); });
      return item;
    }));
    at = -1;
    list.hidden = !found.words.length || document.activeElement !== input;
    input.setAttribute("aria-expanded", String(!list.hidden));
    if (found.words.includes(marked)) mark(found.words.indexOf(marked));
    else input.removeAttribute("aria-activedescendant");
  };
  input.addEventListener("input", show);
  input.addEventListener("focus", () => input.value && show());
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (list.hidden) { if (event.key === "ArrowDown") { show(); event.preventDefault(); } return; }
    if (event.key === "ArrowDown" || event.key === "ArrowUp") { mark(at + (event.key === "ArrowDown" ? 1 : -1)); event.preventDefault(); }
    else if ((event.key === "Enter" || event.key === "Tab") && at >= 0) { choose(list.children[at].textContent); event.preventDefault(); }
    else if (event.key === "Escape") close();
  });
}

// --- the wizard counts while somebody types ----------------------------------------------------------

function counts(form) {
  const out = $("[data-counted]", form);
  let wait = 0, turn = 0;
  const count = async () => {
    const mine = ++turn;
    const query = new URLSearchParams(new FormData(form));
    const found = await ask(`${form.dataset.count}?${query}`).catch((error) => ({ text: error.message }));
    if (mine === turn) out.textContent = found.text;
  };
  form.addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(count, 300); });
  if ($("select[name=release] option", form)) count();
}

// --- uploads in pieces -------------------------------------------------------------------------------

function uploads(form) {
  const file = $("input[type=file]", form), bar = $("progress", form), said = $("[data-said]", form), zone = $(".drop", form);
  for (const kind of ["dragover", "dragleave", "drop"]) zone.addEventListener(kind, (event) => {
    event.preventDefault();
    zone.classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) file.files = event.dataTransfer.files;
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = $("button", form), image = file.files[0];
    button.disabled = true; bar.hidden = false;
    try { await send(image); location.reload(); }
    catch (error) { said.textContent = error.message; button.disabled = false; }
  });
  const send = async (image) => {
    const about = new URLSearchParams({ release: form.dataset.release, device_type: form.elements.device_type.value, name: image.name, size: image.size });
    let { id, offset, piece } = await ask("/ui/uploads", { method: "POST", body: about });
    if (offset) said.textContent = `goes on at ${Math.round(100 * offset / image.size)} %`;
    for (let broken = 0; offset < image.size;) {
      const options = { method: "POST", body: image.slice(offset, offset + piece), headers: { "Content-Type": "application/octet-stream" } };
      try { ({ offset } = await ask(`/ui/uploads/${id}?offset=${offset}`, options)); broken = 0; }
      catch (error) {
        if (error.status && error.status < 500 && error.status !== 409) throw error;
        if (++broken > 8) throw new Error("the line broke; press Upload and it goes on from here");
        said.textContent = "the line broke; trying again";
        await new Promise((done) => setTimeout(done, Math.min(500 * 2 ** broken, 15000)));
        ({ offset } = await ask("/ui/uploads", { method: "POST", body: about }).catch(() => ({ offset })));
      }
      bar.value = 100 * offset / image.size;
    }
    said.textContent = "looking at the image";
    await ask(`/ui/uploads/${id}/end`, { method: "POST" });
  };
}

// --- copying -----------------------------------------------------------------------------------------

function copies(box) {
  if (!navigator.clipboard) return;
  const button = document.createElement("button");
  button.type = "button"; button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText($("pre", box).textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  box.append(button);
}

// --- passkeys ----------------------------------------------------------------------------------------

function passkeys(form, proves) {
  const said = $("[data-passkey-said]", form);
  form.addEventListener("submit", async (event) => {
    if (form.elements.answer.value) return;
    event.preventDefault();
    said.hidden = true;
    try {
      form.elements.answer.value = JSON.stringify((await proves(form)).toJSON());
    } catch (error) {
      said.textContent = `No passkey: ${error.message}`; said.hidden = false;
      return;
    }
    form.elements.old?.remove();
    form.submit();
  });
}

const known = (form) => navigator.credentials.get({
  publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(JSON.parse(form.dataset.passkeyAsk)),
});

async function fresh(form) {
  const body = new URLSearchParams({ old: form.elements.old.value });
  const { half, options } = await ask(form.dataset.passkeyNew, { method: "POST", body });
  form.elements.half.value = half;
  return navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) });
}

tell();
setInterval(tell, 1000);
all("[data-live]").forEach(follow);
all("[data-complete]").forEach(completes);
all("[data-count]").forEach(counts);
all("form.upload").forEach(uploads);
all(".copy").forEach(copies);
all("[data-passkey-ask]").forEach((form) => passkeys(form, known));
all("[data-passkey-new]").forEach((form) => passkeys(form, fresh));
