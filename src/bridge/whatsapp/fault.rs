//! What happens when the link's database fails: from that moment on nothing of the run reaches the disk, and
//! nothing leaves to WhatsApp. What the library makes of the failure stays in its memory and ends with it.
//!
//! So a full or broken disk is to the link what `kill -9` is: WhatsApp is told of nothing that is not on
//! disk, and delivers it again to the next run, which goes on from what the disk has.

use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes;
use tokio::sync::watch;
use whatsapp_rust::async_trait;
use whatsapp_rust::transport::{TokioWebSocketTransportFactory, Transport, TransportEvent, TransportFactory};
use whatsapp_rust::wacore::stats::TransportResourceReport;

use super::notes::UnreadNotes;

/// Whether the link's database has failed in this run, and how. A handle: clones are the same.
#[derive(Clone, Debug, Default)]
pub struct StorageFault(Arc<watch::Sender<Option<String>>>);

impl StorageFault {
    /// Notes the first failure. There is no way back within a run.
    pub fn record_fault(&self, why: &str) {
        self.0.send_if_modified(|fault| {
            let first = fault.is_none();
            if first {
                *fault = Some(why.to_owned());
            }
            first
        });
    }

    pub fn has_happened(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits for a failure, and says what it was.
    pub async fn wait_for_fault(&self) -> String {
        let mut changes = self.0.subscribe();
        let fault = changes.wait_for(Option::is_some).await.map(|fault| fault.clone());
        fault.ok().flatten().unwrap_or_default()
    }
}

/// Connections over which nothing leaves after a failure, nor before what must be noted is noted.
pub struct GuardedTransport {
    pub inner: TokioWebSocketTransportFactory,
    pub fault: StorageFault,
    pub notes: UnreadNotes,
}

#[async_trait]
impl TransportFactory for GuardedTransport {
    async fn create_transport(
        &self,
    ) -> Result<(Arc<dyn Transport>, whatsapp_rust::async_channel::Receiver<TransportEvent>)> {
        ensure!(!self.fault.has_happened(), "The link's database has failed");
        let (inner, events) = self.inner.create_transport().await?;
        let (fault, notes) = (self.fault.clone(), self.notes.clone());
        Ok((Arc::new(GuardedConnection { inner, fault, notes }), events))
    }
}

struct GuardedConnection {
    inner: Arc<dyn Transport>,
    fault: StorageFault,
    notes: UnreadNotes,
}

#[async_trait]
impl Transport for GuardedConnection {
    async fn send(&self, data: Bytes) -> Result<()> {
        self.notes.wait_until_stored().await?;
        ensure!(!self.fault.has_happened(), "The link's database has failed");
        self.inner.send(data).await
    }

    async fn disconnect(&self) {
        self.inner.disconnect().await;
    }

    fn resource_report(&self) -> Option<TransportResourceReport> {
        self.inner.resource_report()
    }
}
