// The token that drives the local Scalekit comes in the fragment, which no server sees, and goes on in the links to it.
const KEPT = "emulator-token";
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  localStorage.setItem(KEPT, given);
  history.replaceState(null, "", location.pathname);
}
const token = localStorage.getItem(KEPT);
const local = document.body.dataset.emulator !== "";

for (const link of document.querySelectorAll("a[data-view]")) {
  link.hash = new URLSearchParams({ ...(token && { token }), view: link.dataset.view }).toString();
}
document.getElementById("locked").hidden = Boolean(token) || !local;
if (local) document.getElementById("scalekit").dataset.state = "good";

async function ask() {
  const line = document.getElementById("service");
  try {
    const answer = await fetch("health/ready", { headers: { Accept: "application/json" } });
    const said = await answer.json();
    line.dataset.state = answer.ok ? "good" : "bad";
    line.textContent = answer.ok ? "The service is ready." : `The service is not ready: ${said.detail}`;
  } catch {
    line.dataset.state = "bad";
    line.textContent = "The service does not answer. Was it ended?";
  }
}
ask();
setInterval(ask, 5000);
