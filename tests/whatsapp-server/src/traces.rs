//! What became of each message on its way to the devices of one phone, step by step: for runs that kill a
//! client at any moment, and have to tell afterwards where a message was lost. Kept only if a test asks
//! for it.

use std::collections::BTreeMap;

use tokio::time::Instant;
use whatsapp_rust::wacore_binary::Node;

use super::Server;
use super::stanza::{DeviceAddress, attr};

#[derive(Default)]
pub struct Traces {
    kept: Option<Kept>,
}

struct Kept {
    phone: String,
    began: Instant,
    /// By the message's id.
    steps: BTreeMap<String, Vec<String>>,
    live: usize,
}

impl Server {
    /// From now on the way of each message to this phone's devices is noted.
    pub fn trace_messages_to(&self, phone: &str) {
        let (phone, began) = (phone.to_owned(), Instant::now());
        let kept = Kept { phone, began, steps: BTreeMap::new(), live: 0 };
        self.shared.change(|state| state.traces.kept = Some(kept));
    }

    /// The steps of a message, each with the seconds since the tracing began.
    pub fn trace_of(&self, message: &str) -> Vec<String> {
        let state = self.shared.lock();
        let steps = state.traces.kept.as_ref().and_then(|kept| kept.steps.get(message));
        steps.cloned().unwrap_or_default()
    }

    /// How many messages have reached the traced devices while they were online.
    pub fn live_deliveries(&self) -> usize {
        self.shared.lock().traces.live()
    }

    /// Waits until more have than these.
    pub async fn wait_for_live_delivery(&self, before: usize) {
        self.wait_until("a message is delivered", |state| state.traces.live() > before).await;
    }
}

impl Traces {
    fn live(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.live)
    }

    /// A stanza is sent to a device that is online.
    pub fn note_delivery(&mut self, to: &DeviceAddress, stanza: &Node) {
        if let Some(kept) = self.of(to, stanza) {
            kept.live += 1;
        }
        self.note(to, stanza, "delivered live");
    }

    /// One more step of a stanza's way, if it is a message that is traced.
    pub fn note(&mut self, to: &DeviceAddress, stanza: &Node, step: &str) {
        let sealed = stanza.get_children_by_tag("enc").filter_map(|sealed| attr(sealed, "type"));
        let step = format!("{step} ({})", sealed.collect::<Vec<_>>().join(", "));
        if let (Some(id), Some(kept)) = (attr(stanza, "id"), self.of(to, stanza)) {
            kept.add(id, &step);
        }
    }

    /// The device has told something of a message.
    pub fn note_answer(&mut self, from: &DeviceAddress, message: &str, step: &str) {
        if let Some(kept) = self.kept.as_mut().filter(|kept| kept.phone == from.phone) {
            kept.add(message.to_owned(), step);
        }
    }

    fn of(&mut self, to: &DeviceAddress, stanza: &Node) -> Option<&mut Kept> {
        let is_message = stanza.tag == "message";
        self.kept.as_mut().filter(|kept| is_message && kept.phone == to.phone && to.device != 0)
    }
}

impl Kept {
    fn add(&mut self, id: String, step: &str) {
        let at = self.began.elapsed().as_secs_f64();
        self.steps.entry(id).or_default().push(format!("{at:.3} s: {step}"));
    }
}
