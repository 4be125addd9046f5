// An application's settings page: who is signed in, the portal, and what becomes of what is done in it.
import "../embed/admin-portal.js";

const EVENTS = {
  "portal-ready": "The portal is there",
  "sso-enabled": "Single sign-on was enabled",
  "sso-disabled": "Single sign-on was disabled",
  "directory-enabled": "Directory sync was enabled",
  "directory-disabled": "Directory sync was disabled",
  "session-warning": "The session ends soon",
  "session-expired": "The session has ended",
  "portal-error": "The portal did not open",
};
const LOOK_AGAIN = [0, 500, 2_000, 5_000]; // milliseconds: the event is here before the webhook has arrived

const element = (id) => document.getElementById(id);
const portal = element("portal");
const problem = (words) => (element("problem").textContent = words);

// The token that drives the local Scalekit, which stands in for this application's login; web/start.js keeps it.
const emulator = sessionStorage.getItem("emulator-token");
let typed = null; // the visitor's own token, kept here alone
let looking = 0;

/** The visitor's token, as this application's login would give it: a new one each time. */
portal.getToken = async () => {
  if (typed) return typed;
  const organization_id = portal.getAttribute("organization-id");
  return (await ask("portal-demo/token", emulator, { organization_id })).token;
};

async function ask(url, bearer, body) {
  const headers = { Authorization: `Bearer ${bearer}`, Accept: "application/json", ...(body && { "Content-Type": "application/json" }) };
  const answer = await fetch(url, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.detail ?? said.title);
  return said;
}

function open(organization) {
  element("events").replaceChildren();
  portal.setAttribute("organization-id", organization);
  refresh();
}

/** Reads the directories now and a few times more, until something else happens. */
async function refresh() {
  const look = (looking += 1);
  const query = new URLSearchParams({ organization_id: portal.getAttribute("organization-id") });
  let token;
  for (const pause of LOOK_AGAIN) {
    await new Promise((resolve) => setTimeout(resolve, pause));
    const [state, words] = await known(async () => ask(`portal-demo/directories?${query}`, (token ??= await portal.getToken())));
    if (look !== looking) return;
    const line = element("directories");
    line.dataset.state = state;
    if (line.textContent !== words) line.textContent = words; // or it would be read out again
  }
}

async function known(directories) {
  try {
    const { data } = await directories();
    if (!data.length) return ["quiet", "The service has not heard of any directory."];
    const lines = data.map(({ provider, enabled, updated_at }) => {
      return `${provider ?? "A directory"} is ${enabled ? "enabled" : "disabled"}, since ${new Date(updated_at).toLocaleTimeString()}.`;
    });
    return [data.some(({ enabled }) => enabled) ? "good" : "bad", lines.join("\n")];
  } catch (error) {
    return ["bad", `The service does not say: ${error.message}`];
  }
}

function note({ type, detail }) {
  const entry = document.createElement("li");
  const [words, more] = ["b", "small"].map((name) => document.createElement(name));
  const { message, provider, id, expiresAt } = detail;
  const facts = [message, provider, id, expiresAt && `until ${expiresAt.toLocaleTimeString()}`].filter(Boolean);
  words.textContent = EVENTS[type];
  more.textContent = [new Date().toLocaleTimeString(), type, ...facts].join(" · ");
  entry.append(words, more);
  element("events").prepend(entry);
}

for (const type of Object.keys(EVENTS)) {
  portal.addEventListener(type, (event) => {
    note(event);
    if (/^(directory|sso)-/.test(type)) refresh();
  });
}

element("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  typed = element("token").value.trim();
  element("token").value = "";
  portal.reload();
  open(element("organization-id").value.trim());
});

async function choose() {
  const picker = element("organization");
  if (!emulator) {
    return problem("This page signs you in with the local Scalekit, whose token it does not have. Open the link that ./run printed first.");
  }
  try {
    const organizations = await ask("portal-demo/organizations", emulator);
    picker.append(...organizations.map(({ id, name }) => new Option(name, id)));
  } catch (error) {
    return problem(`The organizations cannot be listed: ${error.message}`);
  }
  if (!picker.options.length) return problem("The local Scalekit has no organization yet. Add one on its page.");
  picker.disabled = false;
  picker.addEventListener("change", () => open(picker.value));
  open(picker.value);
}

element("choose").addEventListener("submit", (event) => event.preventDefault());
if (!element("choose").hidden) choose();
