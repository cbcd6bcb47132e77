//! The suite that every [`redoubt::broker::Broker`] passes, and what each implementation promises beyond it.

#[macro_use]
mod suite;
mod embedded;
mod embedded_kill;
mod rabbitmq;
mod rabbitmq_faults;
