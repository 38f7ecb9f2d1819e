//! The owner's Kimi login, which only the host holds, and the files that stand in for it inside containers.
//!
//! ```text
//! MOONSHOT_API_KEY ────────────────────────────────┐
//! `nanokimi login` ──▶ kimi-code.json ──▶ Login ───┴──▶ authorization ──▶ egress proxy
//!     oauth, manual         ▲  login_file               ◀─ refused_tokens  (HTTP 401)
//!                           └──── refresher: the one task that refreshes
//! ```
//! [`Login`] (`shared_login`) publishes what the egress proxy may use: the platform API key if `.env` has
//! one, else the login file, which kimi-cli knows too. `quota` asks what is left of the plan, `probe` whether
//! the Kimi API takes the login, and `write_check` tries whether a renewed one could be kept. `stand_in`
//! makes what containers get instead of the login. `accounts` has further logins, each with its refresher, and
//! `accounts_file` what is known of all of them; `account_change` is what a person does with them, `import` reads
//! them from other programs' files. `config_toml` reads the engine's settings, which
//! containers read and which must hold no secret.

mod account_change;
mod accounts;
mod accounts_file;
pub mod config_toml;
mod http;
mod import;
mod login_file;
mod manual;
mod oauth;
mod private_file;
mod probe;
mod quota;
mod refresher;
mod shared_login;
mod stand_in;
mod write_check;

pub use account_change::{
    AccountFiles, ImportResult, forget_unlisted_account, import_account, list_account, note_new_login,
    prepare_account, remove_account,
};
pub use accounts::{AccountLogin, AccountLogins, Accounts, AccountsWatch, EndedLogin};
pub use accounts_file::{ACCOUNTS_MAX, AccountRecord, AccountRecords, update_accounts};
pub use import::{ImportedAccount, read_imported_accounts};
pub use manual::{LogoutResult, check_space_for_login, remove_login, save_login};
pub use oauth::{DeviceCode, LoginServer, PollBackoff, PollResult, TokenGrant};
pub use probe::{ProbeResult, probe_login};
pub use quota::{Quota, QuotaAmount, QuotaLimit, fetch_quota, parse_claimed_account};
pub use refresher::run_refresher;
pub use shared_login::{Login, LoginFacts, LoginRenewal};
pub use stand_in::{load_or_create_device_id, render_stand_in, write_stand_in};
pub use write_check::{WriteObstacle, check_writable};
