//! One client's connection from the handshake to its end: its stanzas into the state, the state's to it. A
//! connection that does not begin as the WebSocket is a question for `web`.

use std::sync::Arc;

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use whatsapp_rust::wacore_binary::Node;

use super::state::{OUTGOING_MAX, Outgoing, State};
use super::{Errand, Shared, noise, phone, web};

/// What the request for the WebSocket begins with.
const SOCKET: &[u8; 8] = b"GET /ws/";

/// Accepts clients until it is aborted, which ends their connections too.
pub async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(tell_apart(stream, shared.clone()));
    }
}

async fn tell_apart(stream: TcpStream, shared: Arc<Shared>) {
    let mut beginning = [0; SOCKET.len()];
    // A client that is gone by now wanted nothing.
    let Ok(_) = stream.peek(&mut beginning).await else { return };
    match beginning == *SOCKET {
        true => serve(stream, shared).await,
        false => web::serve(stream, shared).await,
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // A client that gives up within the handshake has only left early.
    let Ok((channel, greeting)) = noise::accept(stream, &shared.key).await else { return };
    let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
    let (connection, welcomed) = shared.change(|state| {
        let connection = state.connection_id();
        (connection, state.welcome(connection, greeting, outgoing))
    });
    let ended = match welcomed {
        Ok(()) => converse(channel, queue, connection, &shared).await,
        Err(error) => Err(error),
    };
    shared.change(|state| {
        if let Err(error) = ended {
            state.faults.push(format!("{error:#}"));
        }
        state.forget(connection);
    });
}

/// Until one of the two closes the connection; an error is the server's own.
async fn converse(
    mut channel: noise::Channel,
    mut queue: mpsc::Receiver<Outgoing>,
    connection: u64,
    shared: &Shared,
) -> Result<()> {
    loop {
        tokio::select! {
            received = channel.receive() => {
                let Ok(stanza) = received else { return Ok(()) };
                match shared.change(|state| state.on_stanza(connection, &stanza))? {
                    Some(Errand::ShareStateKey(device)) => {
                        phone::share_state_key(shared, &device).await?;
                    }
                    None => {}
                }
            }
            outgoing = queue.recv() => match outgoing {
                Some(Outgoing::Stanza(stanza)) => {
                    if channel.send(&stanza).await.is_err() {
                        return Ok(());
                    }
                }
                Some(Outgoing::Garbage) => {
                    if channel.send_garbage().await.is_err() {
                        return Ok(());
                    }
                }
                Some(Outgoing::Close) | None => {
                    channel.close().await;
                    return Ok(());
                }
            }
        }
    }
}

impl State {
    fn on_stanza(&mut self, connection: u64, stanza: &Node) -> Result<Option<Errand>> {
        self.note(connection, stanza)?;
        let who = self.who(connection);
        match (&*stanza.tag, who) {
            ("iq", who) => return self.on_request(connection, who, stanza),
            ("message", Some(who)) => self.on_message(connection, &who, stanza)?,
            ("receipt", Some(who)) => self.on_receipt(connection, &who, stanza)?,
            ("ack", Some(who)) => self.on_ack(&who, stanza)?,
            // The answer to the notification with which a phone's part of a pairing code comes.
            ("ack", None) => {}
            ("chatstate", Some(who)) => self.on_chatstate(&who, stanza)?,
            ("presence", Some(_)) => {}
            ("ib", Some(who)) => self.on_wish(connection, &who, stanza)?,
            // A client that was linked a moment ago is at times ahead of its login.
            ("ib", None) => {}
            _ => self.not_understood(stanza),
        }
        Ok(None)
    }
}
