//! What `doctor` finds about the gateway for coding tools, if it is enabled.

use tokio::net::{TcpStream, UnixStream};

use super::{Finding, render_error};
use crate::paths::Paths;
use crate::store::Store;
use crate::types::GatewayAddress;

/// Looks whether anybody has a key, and whether something listens. Nothing is said if the gateway is off.
pub async fn check_gateway(paths: &Paths, address: Option<&GatewayAddress>) -> Vec<Finding> {
    let Some(address) = address else { return Vec::new() };
    let keys = match Store::open_for_reading(&paths.database_file()) {
        Ok(Some(store)) => store.gateway_keys().await,
        Ok(None) => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let keys = match keys {
        Ok(keys) => keys.len(),
        Err(error) => return vec![Finding::broken(render_error(&error), "")],
    };
    let connected = match address {
        GatewayAddress::Loopback(address) => TcpStream::connect(address).await.is_ok(),
        GatewayAddress::Unix(path) => UnixStream::connect(path).await.is_ok(),
    };
    vec![if keys == 0 {
        let what = "The gateway for coding tools is enabled, and no client has a key";
        Finding::warning(what, "Run `nanokimi gateway keys add NAME`, or `nanokimi gateway disable`")
    } else if connected {
        Finding::good(format!("The gateway for coding tools listens on {address}; keys: {keys}"))
    } else {
        let what = format!("Nothing listens on {address}, where the gateway for coding tools should");
        Finding::warning(what, "Start nanokimi, or `nanokimi gateway run` for the gateway alone")
    }]
}
