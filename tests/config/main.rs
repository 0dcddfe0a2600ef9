//! The configuration layer from outside: texts and files in, plans and exact messages out.

mod bounds;
mod checks;
mod convert;
mod convert_bounds;
mod edit;
mod keywords;
mod listeners;
mod messages;
mod plans;
mod reload;
mod rules;
mod servers;
mod text;
mod toml;
mod udp;
mod world;
