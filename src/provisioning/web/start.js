// The token that drives the local Scalekit comes in the fragment, which no server sees, and goes on in the links to it.
const KEPT = "emulator-token";
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem(KEPT, given);
  history.replaceState(null, "", location.pathname);
}
const token = sessionStorage.getItem(KEPT);
const local = document.body.dataset.emulator !== "";

for (const link of document.querySelectorAll("a[data-view]")) {
  link.hash = new URLSearchParams({ ...(token && { token }), view: link.dataset.view }).toString();
}
document.getElementById("locked").hidden = Boolean(token) || !local;

async function ask() {
  const service = document.getElementById("service");
  const scalekit = document.getElementById("scalekit");
  try {
    const answer = await fetch("health/ready", { headers: { Accept: "application/json" } });
    const said = await answer.json();
    service.dataset.state = answer.ok ? "good" : "bad";
    service.textContent = answer.ok ? "The service is ready." : `The service is not ready: ${said.detail}`;
    const { emulator } = await (await fetch("start/state")).json();
    scalekit.dataset.state = emulator ? "good" : "bad";
    scalekit.firstElementChild.textContent = emulator ? "A local Scalekit runs beside it, at" : "The local Scalekit has ended. It was at";
  } catch {
    service.dataset.state = scalekit.dataset.state = "bad";
    service.textContent = "The service does not answer. Was it ended?";
  }
}
ask();
setInterval(ask, 5000);
