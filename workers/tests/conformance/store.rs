//! The suite that every [`redoubt::store::Store`] passes, and what each implementation promises beyond it.

mod faults;
mod fixture;
#[macro_use]
mod suite;
mod aggregations;
mod documents;
mod elasticsearch;
mod embedded;
mod embedded_kill;
mod queries;
mod records;
