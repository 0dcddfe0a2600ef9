//! `send-proxy` of servers and what belongs to it: the PROXY header that they get.

use crate::config::draft::ServerSettings;
use crate::config::environment::Environment;

/// `proxy-v2-options`: what a header of version 2 holds beside addresses.
pub(in crate::config) fn options(
    _: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    let words = &mut server.send_proxy;
    for option in value.split(',') {
        match option {
            "authority" => words.authority = true,
            "crc32c" => words.checksum = true,
            "unique-id" => words.unique_id = true,
            // There is no TLS here, so all of them come to one: that there is none.
            "ssl" | "cert-cn" | "cert-key" | "cert-sig" | "ssl-cipher" => words.tls = true,
            _ => {
                return Err(format!(
                    "'proxy-v2-options' : '{option}' : proxy v2 option not implemented."
                ));
            }
        }
    }
    Ok(())
}

/// `send-proxy`, `send-proxy-v2` and its longer forms, and each after a `no-`, which undoes what
/// the word itself does.
pub(in crate::config) fn send_proxy(
    _: &dyn Environment,
    server: &mut ServerSettings,
    name: &str,
    _: &str,
) -> Result<(), String> {
    let on = !name.starts_with("no-");
    let words = &mut server.send_proxy;
    match name.trim_start_matches("no-") {
        "check-send-proxy" => words.checks = on,
        "send-proxy" => words.first = on,
        "send-proxy-v2" => words.second = on,
        _ => (words.second, words.tls) = (on, on),
    }
    Ok(())
}
