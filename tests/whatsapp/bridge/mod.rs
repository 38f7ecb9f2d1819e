//! Our bridge against the server: the test plays the service.

mod chats;
mod delivered;
mod disk;
mod linking;
mod links;
mod media;
mod messages;
mod unread;
mod world;
