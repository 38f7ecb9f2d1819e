//! The passkey that WhatsApp asks some accounts for: a browser of the person answers it. Pure.
//!
//! The request is what `navigator.credentials.get` takes, the answer what it gives, both as JSON with
//! base64url (W3C Web Authentication). A passkey of WhatsApp answers only on WhatsApp's own page.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::writing::normalize_typed_text;

/// Fields of the answer that WhatsApp reads.
const ANSWERED: [&str; 3] = ["clientDataJSON", "authenticatorData", "signature"];

/// Asks for a click first: a browser asks for a passkey only when the person is in the page.
const SCRIPT: &str = "(async()=>{const o=REQUEST;\
const d=s=>Uint8Array.from(atob(s.replace(/-/g,'+').replace(/_/g,'/')),c=>c.charCodeAt(0));\
const e=b=>b?btoa(String.fromCharCode(...new Uint8Array(b))).replace(/\\+/g,'-').replace(/\\//g,'_').replace(/=+$/,''):null;\
o.challenge=d(o.challenge);for(const c of o.allowCredentials||[])c.id=d(c.id);\
await new Promise(f=>addEventListener('click',f,{once:true,capture:true}));\
const a=await navigator.credentials.get({publicKey:o}),r=a.response;\
console.log(JSON.stringify({id:a.id,rawId:e(a.rawId),type:a.type,response:{clientDataJSON:e(r.clientDataJSON),\
authenticatorData:e(r.authenticatorData),signature:e(r.signature),userHandle:e(r.userHandle)}}))})()";

/// What the person is told to do.
///
/// # Errors
/// The request is no JSON.
pub fn render_passkey_instructions(request: &str) -> Result<String> {
    // Parsed and written again: what is pasted into a browser holds values, and nobody else's program.
    let request: Value =
        serde_json::from_str(request).context("Failed to read WhatsApp's question for a passkey")?;
    let request = serde_json::to_string(&request)?;
    Ok(format!(
        "WhatsApp asks for the passkey of this account. A browser that can use it has to answer:\n\
         \n\
         1. Open https://web.whatsapp.com in a browser on a computer, or any that knows the passkey or can ask your \
         phone.\n\
         2. Open its console (F12, then Console), paste this line, and press Enter:\n\
         \n\
         {}\n\
         \n\
         3. Click once into the page, and confirm what the browser asks.\n\
         4. The console then shows one line that begins with {{\"id\":. Paste it here and press Enter.\n\
         \n\
         WhatsApp's question, for other tools:\n\
         {request}\n",
        SCRIPT.replace("REQUEST", &request)
    ))
}

/// The answer, if the line holds one.
///
/// # Errors
/// Says what is wrong with the line.
pub fn parse_passkey_answer(line: &str) -> Result<String> {
    // A browser may show it as a string, in quotes.
    let line = normalize_typed_text(line);
    let line = line.trim_matches(['\'', '`']);
    let Ok(value) = serde_json::from_str::<Value>(line) else {
        bail!("That is not the whole line; it begins with {{ and ends with }}. Paste it again");
    };
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let whole = is_text(&value["id"])
        && is_text(&value["rawId"])
        && ANSWERED.iter().all(|field| is_text(&value["response"][*field]));
    ensure!(whole, "That is not the browser's answer, which has an id and a signature. Paste it again");
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"id":"YQ","rawId":"YQ","type":"public-key","response":{"clientDataJSON":"e30","authenticatorData":"AA","signature":"AQ","userHandle":null}}"#;

    #[test]
    fn the_person_is_told_what_to_do_with_the_request() {
        let said = render_passkey_instructions(
            r#"{ "challenge": "AQID", "rpId": "web.whatsapp.com", "allowCredentials": [] }"#,
        )
        .unwrap();
        let script = said.lines().find(|line| line.starts_with("(async")).unwrap();
        assert!(
            script
                .contains(r#"const o={"challenge":"AQID","rpId":"web.whatsapp.com","allowCredentials":[]};"#),
            "{script}"
        );
        assert!(script.ends_with("})()"), "{script}");
        insta::assert_snapshot!(said.replace(script, "SCRIPT"), @r#"
        WhatsApp asks for the passkey of this account. A browser that can use it has to answer:

        1. Open https://web.whatsapp.com in a browser on a computer, or any that knows the passkey or can ask your phone.
        2. Open its console (F12, then Console), paste this line, and press Enter:

        SCRIPT

        3. Click once into the page, and confirm what the browser asks.
        4. The console then shows one line that begins with {"id":. Paste it here and press Enter.

        WhatsApp's question, for other tools:
        {"challenge":"AQID","rpId":"web.whatsapp.com","allowCredentials":[]}
        "#);
    }

    #[test]
    fn a_request_that_holds_a_program_reaches_no_browser() {
        assert!(render_passkey_instructions("{};fetch('https://x')").is_err());
    }

    #[test]
    fn an_answer_is_taken_whole_or_not_at_all() {
        for line in [ANSWER.to_owned(), format!("  '{ANSWER}' "), format!("`{ANSWER}`")] {
            assert_eq!(parse_passkey_answer(&line).unwrap(), ANSWER);
        }
        for (line, expected) in [
            (&ANSWER[..40], "That is not the whole line"),
            ("yes", "That is not the whole line"),
            ("{}", "That is not the browser's answer"),
            (&ANSWER.replace("signature", "sign"), "That is not the browser's answer"),
        ] {
            let error = parse_passkey_answer(line).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{line}: {error}");
        }
    }
}
