//! Our bridge against the server: a test holds the service's end.

mod chats;
mod delivered;
mod disk;
mod linking;
mod links;
mod media;
mod messages;
mod unread;
mod world;
