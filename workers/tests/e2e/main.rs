//! The whole product as a user meets it: the `redoubt` binary, real files, real sockets.

mod attack;
mod cli;
mod crash;
mod harness;
mod hostile;
mod reload;
mod webhook;
