// Keeps a page of a session up to date, loads other parts of a conversation, and shows times in the reader's zone.
// Everything works without it, too, by following links. The relay has escaped whatever is inserted here.
"use strict";

const SETTLE_MS = 300; // Events arrive in bursts.
const EVERY_MS = 1500; // At most that often, so that a busy session does not use up the key's requests.
const RETRY_MS = 5000;
const NEAR_END_PX = 120;
const TOP_PX = 60; // The bar at the top covers so much.

function localize(root) {
  const now = new Date();
  for (const element of root.querySelectorAll("time:not([title])")) {
    const at = new Date(element.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const day = at.toDateString() === now.toDateString() ? {} : { day: "numeric", month: "short" };
    const year = at.getFullYear() === now.getFullYear() ? {} : { year: "numeric" };
    element.title = element.textContent;
    element.textContent = at.toLocaleString(undefined, { ...day, ...year, hour: "2-digit", minute: "2-digit" });
  }
}

async function load(url) {
  const response = await fetch(url, { headers: { Accept: "text/html" }, cache: "no-store" });
  if (response.status === 401 || response.status === 404) location.reload(); // Signed out, or the session was deleted.
  if (!response.ok) throw new Error(response.status);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  localize(page);
  return page;
}

// Other parts of a conversation

async function insert(link) {
  const where = link.dataset.load;
  const chunks = document.getElementById("chunks");
  const place = link.parentElement;
  const page = await load(link.href);
  const added = [...page.getElementById("chunks").children];
  const first = chunks.firstElementChild;
  const top = first?.getBoundingClientRect().top;
  if (where === "before") chunks.prepend(...added);
  else chunks.append(...added);
  place.replaceWith(page.getElementById(place.id));
  if (where === "before" && first) scrollBy(0, first.getBoundingClientRect().top - top);
  const next = document.getElementById(place.id)?.querySelector("a[data-load]") ?? added.at(-1);
  if (next) {
    next.tabIndex = next.tagName === "A" ? 0 : -1;
    next.focus({ preventScroll: true });
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-load]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  if (link.ariaBusy === "true") return;
  link.ariaBusy = "true";
  insert(link).catch(() => location.assign(link.href));
});

// Live

const events = document.body.dataset.events;
let position = document.body.dataset.position;
let source, timer;
let refreshedAt = 0;

function say(text) {
  const element = document.getElementById("live");
  if (element && element.textContent !== text) element.textContent = text;
}

function isInUse(element) {
  const fields = [...element.querySelectorAll("input:not([type=hidden]), textarea")];
  return fields.some((field) => field === document.activeElement || field.value !== field.defaultValue || field.checked);
}

function plan(delay = SETTLE_MS) {
  timer ??= setTimeout(refresh, Math.max(delay, refreshedAt + EVERY_MS - Date.now()));
}

async function refresh() {
  const last = document.querySelector("[data-live=append]")?.lastElementChild?.dataset.chunk;
  const url = last ? `${location.pathname}?after=${encodeURIComponent(last)}` : location.href;
  refreshedAt = Date.now();
  try {
    const page = await load(url);
    timer = undefined;
    for (const element of document.querySelectorAll("[data-live]")) {
      const fresh = page.getElementById(element.id);
      if (fresh) replace(element, fresh);
    }
  } catch {
    timer = undefined;
    plan(RETRY_MS);
  }
}

function replace(element, fresh) {
  if (element.dataset.live === "append") {
    const isAtEnd = innerHeight + scrollY > document.documentElement.scrollHeight - NEAR_END_PX;
    if (fresh.children.length) document.getElementById("nothing")?.remove();
    element.append(...fresh.children);
    if (isAtEnd) scrollTo(0, document.documentElement.scrollHeight);
    if ("more" in fresh.dataset) plan();
  } else if (isInUse(element)) {
    plan(RETRY_MS); // Somebody is writing here.
  } else if (element.innerHTML !== fresh.innerHTML) {
    const restore = remember(element);
    for (const open of element.querySelectorAll("details[open][id]")) {
      fresh.querySelector(`#${CSS.escape(open.id)}`)?.setAttribute("open", "");
    }
    for (const kept of element.querySelectorAll("[data-keep]")) {
      fresh.querySelector(`#${CSS.escape(kept.id)}`)?.replaceWith(kept);
    }
    element.replaceWith(fresh);
    restore(fresh);
  }
}

// Tells an element from others before and after a refresh. Forms are told apart by what they send.
function identity(element) {
  const form = element.form && [...new FormData(element.form)].filter(([name]) => name !== "form_id");
  const own = [element.localName, element.id || element.parentElement.id, element.ariaLabel, element.href];
  return JSON.stringify([...own, element.form?.action, form, element.ariaLabel ? "" : element.textContent]);
}

// Notes the focus, and what is in sight. Returns a function that restores them in the new element.
function remember(element) {
  const inside = (selector) => [...element.querySelectorAll(selector)];
  const focused = element.contains(document.activeElement) ? document.activeElement : undefined;
  const scrolled = inside("pre, nav, .scroll, .problem")
    .filter((part) => part.scrollLeft || part.scrollTop)
    .map((part) => ({ part, left: part.scrollLeft, top: part.scrollTop }));
  const offset = (part) => part.getBoundingClientRect().top;
  const isAbove = offset(element) < 0;
  const anchor = isAbove ? inside("a, summary, button").find((part) => offset(part) > TOP_PX) : undefined;
  const top = anchor && offset(anchor);
  const kept = [focused, anchor, ...scrolled.map(({ part }) => part)].filter(Boolean);
  const names = new Map(kept.map((part) => [part, identity(part)]));
  return (fresh) => {
    const twin = (part) => [...fresh.querySelectorAll(part.localName)].find((other) => identity(other) === names.get(part));
    for (const { part, left, top } of scrolled) twin(part)?.scrollTo({ left, top, behavior: "instant" });
    if (focused) twin(focused)?.focus({ preventScroll: true });
    const place = anchor && twin(anchor);
    if (place) scrollBy({ top: offset(place) - top, behavior: "instant" });
  };
}

// A browser has only a few connections to one host, so only the page in sight is live.
function follow() {
  source?.close();
  source = undefined;
  if (!events || document.hidden) return;
  source = new EventSource(`${events}?after=${position}`);
  source.onopen = () => say("live");
  source.onmessage = (event) => {
    position = event.lastEventId;
    plan();
  };
  source.onerror = (event) => {
    say("reconnecting …");
    if (event.data) source?.close(); // The relay said why it ends the stream: the key may have been revoked.
    else if (source?.readyState !== EventSource.CLOSED) return; // The browser reconnects by itself.
    setTimeout(() => load(location.href).then(follow, follow), event.data ? SETTLE_MS : RETRY_MS);
  };
}

document.addEventListener("visibilitychange", follow);
const { every } = document.body.dataset; // Pages without a stream of events look again by themselves.
if (every) setInterval(() => document.hidden || plan(0), every * 1000);
localize(document);
follow();
document.querySelector(".tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// A conversation is read from its end on, unless a place in it was asked for.
if (document.querySelector("[data-live=append]") && !location.hash && history.scrollRestoration) {
  if (performance.getEntriesByType("navigation")[0]?.type === "navigate") scrollTo(0, document.documentElement.scrollHeight);
}
