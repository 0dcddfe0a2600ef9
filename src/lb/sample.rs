//! The value of an expression by itself, for who shows it.

use std::net::{IpAddr, SocketAddr};

use super::PickRequest;
use super::key::{Value, evaluate};
use crate::config::plan::Expression;

/// What an expression of a connection's addresses gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sampled {
    /// An address.
    Address(IpAddr),
    /// A number.
    Number(i64),
}

/// The value of an expression for a connection from `client` to `local`; `None` = there is none.
pub fn sampled(
    expression: &Expression,
    client: Option<SocketAddr>,
    local: Option<SocketAddr>,
) -> Option<Sampled> {
    let request = PickRequest {
        client,
        local,
        ..PickRequest::default()
    };
    let value = evaluate(expression, &request)?;
    if let Value::V4(octets) = value {
        Some(Sampled::Address(octets.into()))
    } else if let Value::V6(octets) = value {
        Some(Sampled::Address(octets.into()))
    } else if let Value::Number(number) = value {
        Some(Sampled::Number(number))
    } else {
        None
    }
}
