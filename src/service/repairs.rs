//! Has the bridge encrypt anew what a person's device may not be able to read. Repairs go beside everything
//! that is sent; nothing waits for them. Which are made, and when, is decided in `repair` and kept in the
//! store.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::bridge::{Order, RepairOrder, SendError};
use crate::store::DueRepair;

/// How long the bridge may take over one repair: keys are asked for, and one message is sent.
const REPAIR_LIMIT: Duration = Duration::from_secs(60);

/// Makes these repairs, one after the other. Returns those that could not be made now. Only a receipt from
/// the device shows whether a repair has helped.
pub async fn send_repairs(orders: mpsc::Sender<Order>, due: Vec<DueRepair>) -> Vec<DueRepair> {
    let mut not_made = Vec::new();
    for repair in due {
        let (outcome, answer) = oneshot::channel();
        let order = Order::Repair(RepairOrder {
            chat: repair.chat.clone(),
            id: repair.id.clone(),
            person: repair.person.clone(),
            device: repair.device,
            message: repair.message.clone(),
            outcome,
        });
        let made = async {
            orders.send(order).await.ok()?;
            answer.await.ok()
        };
        match timeout(REPAIR_LIMIT, made).await {
            Ok(Some(Ok(()))) => {
                tracing::info!("Sent a reply anew to a device that may not be able to read it")
            }
            Ok(Some(Err(SendError::NoKeys))) => {
                tracing::info!(
                    "WhatsApp has no keys of a device that cannot read a reply; it is tried again"
                );
            }
            Ok(Some(Err(SendError::Later(error) | SendError::Never(error)))) => {
                tracing::info!("Could not send a reply anew to a device: {error}");
                not_made.push(repair);
            }
            Ok(None) | Err(_) => not_made.push(repair),
        }
    }
    not_made
}
