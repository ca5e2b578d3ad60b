// Where nobody is signed in, or nobody answers.
import { html, useState } from "../html.js";
import { check, session, signIn } from "../session.js";

export function SignIn() {
  const [problem, setProblem] = useState(null);
  const { phase, why } = session.value;
  const submit = async (event) => {
    event.preventDefault();
    const field = event.target.elements.token;
    try {
      await signIn(field.value.trim());
    } catch (error) {
      field.value = "";
      setProblem(error);
    }
  };
  if (phase === "unreachable") {
    return html`<main class="centre"><h1>The daemon does not answer</h1><p>${why}</p><p>Trainers go on without it and keep what they can.
      See <code>gradwatch status</code>, or start it: <code>gradwatch serve</code>.</p><button class="primary" onClick=${check}>Try again</button></main>`;
  }
  return html`<main class="centre"><h1>gradwatch</h1>${why && html`<p role="status">${why}</p>`}
    <p>Open the address that <code>gradwatch token link</code> prints, or paste a token (<code>gradwatch token</code>).</p>
    <form onSubmit=${submit}><label for="token">Token</label>
      <div class="row"><input id="token" name="token" type="password" autocomplete="off" required spellcheck=${false} />
      <button class="primary">Sign in</button></div></form>
    ${problem && html`<p class="trouble" role="alert"><b>✕ ${problem.status === 401 ? "No token of this daemon." : problem.title}</b></p>`}
    <p class="dim">The token is changed for a cookie that scripts cannot read. It ends after 12 hours, with its token, or with the daemon.</p></main>`;
}
