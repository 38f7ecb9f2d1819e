//! Reading and building the stanzas of the wire. Knows no account and no connection.

use anyhow::{Context, Result};
use whatsapp_rust::NodeBuilder;
use whatsapp_rust::wacore_binary::{Jid, Node, NodeContent};

/// Who speaks if the server itself does.
pub const SERVER: &str = "s.whatsapp.net";

/// A linked device of an account, or its phone as device 0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceAddress {
    pub phone: String,
    pub device: u16,
}

pub fn attr(node: &Node, key: &str) -> Option<String> {
    node.attrs.get(key).map(|value| value.as_str().into_owned())
}

pub fn required(node: &Node, key: &str) -> Result<String> {
    attr(node, key).with_context(|| format!("Failed to find {key} in {}", show(node)))
}

pub fn required_jid(node: &Node, key: &str) -> Result<Jid> {
    let text = required(node, key)?;
    text.parse().with_context(|| format!("Failed to read {text:?} as an address"))
}

pub fn child<'a>(node: &'a Node, tag: &str) -> Option<&'a Node> {
    node.get_optional_child(tag)
}

pub fn children(node: &Node) -> &[Node] {
    node.children().unwrap_or_default()
}

/// The bytes in a child, which a stanza of the given shape always has.
pub fn child_bytes(node: &Node, tag: &str) -> Result<Vec<u8>> {
    let found = child(node, tag).with_context(|| format!("Failed to find <{tag}> in {}", show(node)))?;
    Ok(bytes(found))
}

/// The messages that a receipt is for.
pub fn receipt_ids(receipt: &Node) -> Vec<String> {
    let listed = child(receipt, "list").into_iter().flat_map(|list| list.get_children_by_tag("item"));
    attr(receipt, "id").into_iter().chain(listed.filter_map(|item| attr(item, "id"))).collect()
}

pub fn bytes(node: &Node) -> Vec<u8> {
    match &node.content {
        Some(NodeContent::Bytes(bytes)) => bytes.to_vec(),
        Some(NodeContent::String(text)) => text.as_bytes().to_vec(),
        Some(NodeContent::Nodes(_)) | None => Vec::new(),
    }
}

pub fn big_endian(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// A key's number on the wire.
pub fn three_bytes(number: u32) -> Vec<u8> {
    number.to_be_bytes()[1..].to_vec()
}

/// Device 0 is written without its number.
pub fn jid(user: &str, device: u16, server: &str) -> Jid {
    let text = if device == 0 { format!("{user}@{server}") } else { format!("{user}:{device}@{server}") };
    text.parse().expect("digits make an address")
}

pub fn by_phone(address: &DeviceAddress) -> Jid {
    jid(&address.phone, address.device, SERVER)
}

/// The answer to a request.
pub fn result(request: &Node, children: Vec<Node>) -> Node {
    let from = attr(request, "to").unwrap_or_else(|| SERVER.to_owned());
    let mut answer = NodeBuilder::new("iq").attr("from", from).attr("type", "result");
    if let Some(id) = attr(request, "id") {
        answer = answer.attr("id", id);
    }
    if children.is_empty() { answer.build() } else { answer.children(children).build() }
}

/// The answer to a request that is refused.
pub fn error(request: &Node, code: u16, text: &'static str) -> Node {
    let error = NodeBuilder::new("error").attr("code", code).attr("text", text).build();
    let mut answer = result(request, vec![error]);
    answer.attrs.insert("type", "error");
    answer
}

/// One line for people: keys and ciphertexts as their sizes.
pub fn show(node: &Node) -> String {
    let mut line = format!("<{}", node.tag);
    for (key, value) in node.attrs.iter() {
        line += &format!(" {key}={:?}", value.as_str());
    }
    match &node.content {
        None => line + "/>",
        Some(NodeContent::Nodes(children)) => {
            let inner: String = children.iter().map(show).collect();
            format!("{line}>{inner}</{}>", node.tag)
        }
        Some(NodeContent::Bytes(bytes)) => format!("{line}>[{} bytes]</{}>", bytes.len(), node.tag),
        Some(NodeContent::String(text)) => format!("{line}>{text}</{}>", node.tag),
    }
}
