// Shows what the last answer said, posts what is pressed, and hands the answer's events to the page around this one.

const WARNED_BEFORE = 5 * 60_000; // milliseconds

const { session, audience, answer } = document.body.dataset;
const settings = document.getElementById("settings");
const element = (id) => document.getElementById(id);

let state = null;
let warned = false;
let busy = false;

// Who may hear: the page around this one, if it is one that may show it. Of several targets a browser delivers to the one that it is.
function listeners() {
  const allowed = audience ? audience.split(" ") : [location.origin];
  const around = location.ancestorOrigins?.[0] ?? (document.referrer && new URL(document.referrer).origin);
  return around ? allowed.filter((origin) => origin === around) : allowed;
}

function tell(events) {
  if (window.parent === window) return;
  for (const event of events) for (const origin of listeners()) window.parent.postMessage(event, origin);
}

async function act(name, body = {}) {
  if (busy) return; // one thing at a time, or a slow answer's event is heard twice
  work(true);
  let reply, said;
  try {
    reply = await fetch(`/portal/${name}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Portal-Session": session },
      body: JSON.stringify(body),
    });
    said = await reply.json();
  } catch {
    return complain("The emulator does not answer. Is it running?");
  } finally {
    work(false);
  }
  warned ||= name === "warning";
  take(said, reply.ok || reply.status === 401);
}

function work(now) {
  busy = now;
  settings.querySelectorAll("button").forEach((button) => (button.disabled = now));
}

// A refusal without a state changes nothing that is shown.
function take({ detail, events, state: news }, understood) {
  if (news || understood) state = news;
  if (state) show();
  else end();
  complain(state && detail);
  tell(events);
}

function show() {
  element("notice").hidden = true;
  settings.hidden = false;
  element("organization").textContent = state.organization;
  element("ends").textContent = clock();
  for (const input of settings.elements.provider) {
    const { set_up, enabled, users } = state.providers[input.value];
    const people = enabled ? `${users} ${users === 1 ? "person" : "people"}` : set_up ? "disabled" : "not set up";
    input.parentElement.querySelector("small").textContent = people;
  }
  choose();
  element("warning").hidden = left() > WARNED_BEFORE;
  element("warning").textContent = `This session ends soon, at ${clock()}. What you have changed is kept.`;
}

function choose() {
  const provider = settings.elements.provider.value;
  const name = settings.querySelector("label:has(:checked) span").textContent;
  feature("sso", state.sso, state.sso ? "Disable SSO" : `Enable SSO with ${name}`);
  const { enabled } = state.providers[provider];
  feature("dir_sync", enabled, enabled ? `Disable sync from ${name}` : `Enable sync from ${name}`);
}

function feature(name, on, words) {
  const card = settings.querySelector(`[data-feature=${name}]`);
  card.hidden = !state.features.includes(name);
  card.querySelector(".chip").textContent = on ? "Enabled" : "Disabled";
  card.querySelector(".chip").classList.toggle("on", on);
  const button = card.querySelector("button");
  button.textContent = words;
  button.classList.toggle("off", on);
}

function end() {
  settings.hidden = true;
  element("notice").hidden = false;
  element("notice").querySelector("h1").textContent = "This session has ended";
  element("notice").querySelector("p").textContent = "Reload the page around it for a new one. What you have changed is kept.";
}

function complain(detail) {
  element("problem").hidden = !detail;
  element("problem").textContent = detail;
}

const left = () => new Date(state.expires_at) - Date.now();
const clock = () => new Date(state.expires_at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

// By the clock and not by one long timer: a machine may sleep.
function watch() {
  if (!state) return;
  if (left() <= 0) act("expiry");
  else if (left() <= WARNED_BEFORE && !warned) act("warning");
}

settings.addEventListener("change", choose);
settings.addEventListener("submit", (event) => event.preventDefault());
settings.addEventListener("click", ({ target }) => {
  const name = target.dataset?.act;
  if (name === "sso") act("sso", { provider: settings.elements.provider.value, enabled: !state.sso });
  if (name === "directory") {
    const provider = settings.elements.provider.value;
    act("directory", { provider, enabled: !state.providers[provider].enabled });
  }
  if (name === "warning" || name === "expiry") act(name);
});

const first = JSON.parse(answer);
if (session) {
  const used = Object.entries(first.state.providers);
  settings.elements.provider.value = (used.find(([, it]) => it.enabled) ?? used.find(([, it]) => it.set_up) ?? used[0])[0];
  take(first, true);
  setInterval(watch, 1000);
} else {
  tell(first.events);
}
