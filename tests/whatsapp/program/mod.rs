//! The program as a person has it: `auth`, `setup` and `run` as processes, linked to the loopback server.

mod linking;
mod serving;
mod terminal;
mod world;
