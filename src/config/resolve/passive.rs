//! What a server's traffic may do to it: `observe` with its words, `max-fails` and `fail-timeout`.

use super::Builder;
use crate::base::address::Address;
use crate::base::send_proxy::SendProxy;
use crate::base::source::Source;
use crate::config::diagnostics::Severity;
use crate::config::draft::{Mode, Observed, ProxyDraft, ServerDraft};
use crate::config::plan::{Breaker, Check, DatagramCheck, Observe, OnError, Passive, Target};

/// nginx's `max_fails` where only `fail_timeout` is given.
const MAX_FAILS_DEFAULT: u16 = 1;
/// nginx's `fail_timeout` where only `max_fails` is given.
const FAIL_TIMEOUT_DEFAULT_MS: u32 = 10_000;

impl Builder<'_, '_> {
    /// What traffic may do to a server with this check; `timeout_ms`, `source` and `send_proxy` are
    /// those of probes of the server's own address.
    pub(in crate::config) fn passive(
        &mut self,
        draft: &ServerDraft,
        proxy: &ProxyDraft,
        check: Option<&Check>,
        timeout_ms: u32,
        source: Option<Source>,
        send_proxy: Option<SendProxy>,
    ) -> Passive {
        let settings = &draft.settings.passive;
        let what = format!("'server {}/{}'", proxy.name, draft.name);
        if settings.observe == Observed::Layer7 {
            let text =
                format!("{what} : 'layer7' can only be used in http proxies: nothing is observed.");
            self.report.warning(&draft.place, None, text);
        }
        let wanted = settings.observe == Observed::Layer4;
        if wanted && !draft.settings.check {
            let text = format!("{what} : 'observe layer4' has no effect without 'check'.");
            self.report
                .about(Severity::Notice, &draft.place, None, text);
        }
        let observe = check.filter(|_| wanted).map(|_| Observe {
            error_limit: settings.error_limit,
            on_error: settings.on_error,
        });
        let given = settings.max_fails.is_some() || settings.fail_timeout_ms.is_some();
        let max_fails = match settings.max_fails {
            None if given => MAX_FAILS_DEFAULT,
            max_fails => max_fails.unwrap_or(0),
        };
        let own = match &draft.address {
            Target::Fixed(address) => Some(address),
            Target::OfClient { .. } if max_fails > 0 => {
                let text = format!(
                    "{what} : 'max-fails' needs a server with an address and a port of its own, to \
                     probe it: this one has those of the client's destination."
                );
                self.report.alert(&draft.place, None, text);
                None
            }
            Target::OfClient { .. } | Target::Unresolved => None,
        };
        // A check that passes elsewhere doesn't say that the server can be connected to.
        let marked_down = check.filter(|_| observe.is_some_and(marks_down));
        let elsewhere = marked_down.filter(|check| Some(&check.address) != own);
        let fail_timeout_ms = match (settings.fail_timeout_ms, elsewhere) {
            (Some(ms), _) => ms,
            (None, Some(check)) if max_fails == 0 => check.down_inter_ms,
            (None, _) => FAIL_TIMEOUT_DEFAULT_MS,
        };
        let is_udp = proxy.settings.mode == Mode::Udp;
        let breaks = max_fails > 0 || elsewhere.is_some();
        let breaker = |address: &Address| Breaker {
            max_fails,
            fail_timeout_ms,
            probe: Check {
                timeout_ms,
                source,
                send_proxy,
                datagram: is_udp.then_some(DatagramCheck::Probe),
                ..Check::of(address.clone())
            },
        };
        Passive {
            observe,
            breaker: own.filter(|_| breaks).map(breaker),
        }
    }
}

fn marks_down(observe: Observe) -> bool {
    observe.on_error == OnError::MarkDown
}
