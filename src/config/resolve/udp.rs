//! What `mode udp` adds to a proxy and its servers, from what its lines say.

use std::collections::HashMap;

use super::check::steps;
use super::{Builder, kind_word};
use crate::base::send_proxy::{SendProxy, Version};
use crate::config::draft::{BalanceWord, Mode, ProxyDraft, ServerDraft};
use crate::config::draft_check::CheckKind;
use crate::config::plan::{
    DatagramCheck, Expression, Fetch, QuicLb, Target, UdpBack, UdpFront, UdpSockets,
};

impl Builder<'_, '_> {
    /// The accepting side. `leads_to` is its backend.
    pub(in crate::config) fn udp_front(
        &self,
        draft: &ProxyDraft,
        leads_to: Option<&ProxyDraft>,
    ) -> Option<UdpFront> {
        let settings = Some(&draft.settings).filter(|settings| settings.mode == Mode::Udp)?;
        let (udp, timeouts) = (settings.udp, settings.timeouts);
        Some(UdpFront {
            idle_ms: timeouts.udp.or(timeouts.client).unwrap_or(0),
            unconfirmed_ms: timeouts
                .udp_unconfirmed
                .unwrap_or(UdpFront::UNCONFIRMED_DEFAULT_MS),
            requests_max: udp.requests_max.filter(|most| *most > 0),
            responses_max: udp.responses_max,
            source_flows_max: udp.source_flows_max,
            log: udp.log,
            fragment: udp.fragment.unwrap_or(!leads_to.is_some_and(is_quic)),
            header: udp.header,
        })
    }

    /// The connecting side.
    pub(in crate::config) fn udp_back(&mut self, draft: &ProxyDraft) -> Option<UdpBack> {
        self.check_keys(draft);
        let settings = Some(&draft.settings).filter(|settings| settings.mode == Mode::Udp)?;
        let (udp, timeouts) = (settings.udp, settings.timeouts);
        if let Some(place) = udp.quic_lb {
            self.check_quic_ids(draft, place);
        }
        if udp.bidirectional && udp.sockets == UdpSockets::Dedicated {
            let text = format!(
                "{} '{}' : 'option udp-bidirectional' has no effect with 'udp-sockets dedicated': \
                 a socket of its own ends with its flow, and until then takes what its server \
                 sends.",
                kind_word(draft.kind),
                draft.name
            );
            self.report.warning(&draft.place, None, text);
        }
        let mapping_ms = timeouts.udp_mapping.unwrap_or(UdpBack::MAPPING_DEFAULT_MS);
        let bidirectional = udp.bidirectional && udp.sockets == UdpSockets::Pool;
        Some(UdpBack {
            idle_ms: timeouts.udp.or(timeouts.server).unwrap_or(0),
            sockets: udp.sockets,
            mapping_ms: bidirectional.then_some(mapping_ms),
            fragment: udp.fragment.unwrap_or(!is_quic(draft)),
            header: udp.header,
        })
    }

    /// Whether servers can be chosen as `balance` says.
    fn check_keys(&mut self, draft: &ProxyDraft) {
        let is_udp = draft.settings.mode == Mode::Udp;
        let fault = match draft.settings.balance {
            Some(BalanceWord::Hash(expression)) if expression.fetch.is_datagram() && !is_udp => {
                "'balance hash' of what is in a datagram needs 'mode udp'"
            }
            Some(BalanceWord::PeakEwma) if is_udp => {
                "'balance peak-ewma' goes by how long connects take, and there are none in \
                 'mode udp'"
            }
            _ => return,
        };
        let text = format!("{} '{}' : {fault}.", kind_word(draft.kind), draft.name);
        self.report.alert(&draft.place, None, text);
    }

    /// Ids have the length that `quic-lb` reads, and each is that of one server.
    fn check_quic_ids(&mut self, draft: &ProxyDraft, place: QuicLb) {
        let mut owners: HashMap<&[u8], &ServerDraft> = HashMap::new();
        for server in &draft.servers {
            let id = server.settings.quic_id.as_slice();
            let what = format!("'server {}/{}'", draft.name, server.name);
            let length = usize::from(place.length);
            if id.is_empty() {
                let text = format!(
                    "{what} has no 'quic-id': clients that change their address may go to another \
                     server."
                );
                self.report.warning(&server.place, None, text);
            } else if id.len() != length {
                let text = format!(
                    "{what} : 'quic-id' has a length of {}, and 'quic-lb' reads {length}.",
                    id.len()
                );
                self.report.alert(&server.place, None, text);
            } else if let Some(first) = owners.insert(id, server) {
                let text = format!(
                    "{what} : 'quic-id' is that of server '{}' at {} already.",
                    first.name, first.place
                );
                self.report.alert(&server.place, None, text);
            }
        }
    }

    /// Where a client's datagrams were going to is not asked for: a server is where its line says.
    pub(in crate::config) fn check_target(&mut self, server: &ServerDraft, proxy: &ProxyDraft) {
        let of_client = matches!(server.address, Target::OfClient { .. });
        if proxy.settings.mode == Mode::Udp && of_client {
            let text = format!(
                "'server {}/{}' : 'mode udp' needs the address and the port of the server.",
                proxy.name, server.name
            );
            self.report.alert(&server.place, None, text);
        }
    }

    /// What a header to a server of datagrams can't be.
    pub(in crate::config) fn check_header(
        &mut self,
        send_proxy: Option<SendProxy>,
        server: &ServerDraft,
        proxy: &ProxyDraft,
    ) {
        let first = send_proxy.is_some_and(|header| header.version == Version::One);
        if proxy.settings.mode == Mode::Udp && first {
            let text = format!(
                "'server {}/{}' : 'send-proxy' : headers of version 1 know no datagrams; write \
                 'send-proxy-v2'.",
                proxy.name, server.name
            );
            self.report.alert(&server.place, None, text);
        }
    }
}

/// How a server is asked by datagrams; `None` = over TCP. What is inherited for TCP is used where a
/// check has a port of its own: there TCP listens.
pub(super) fn datagram_check(server: &ServerDraft, proxy: &ProxyDraft) -> Option<DatagramCheck> {
    if proxy.settings.mode != Mode::Udp {
        return None;
    }
    let check = &proxy.settings.check_kind;
    match &check.kind {
        CheckKind::Udp => Some(DatagramCheck::Steps(
            steps(&check.udp, |_| Vec::new()).into(),
        )),
        CheckKind::Dns(name) => Some(DatagramCheck::Dns(name.as_str().into())),
        CheckKind::Dht => Some(DatagramCheck::Dht),
        CheckKind::Connect => probes(server),
        _ if check.own => None,
        _ => probes(server),
    }
}

/// `check port N` connects, as an agreed sign of life; without it a datagram has to do.
fn probes(server: &ServerDraft) -> Option<DatagramCheck> {
    let elsewhere = server.settings.check_port.is_some();
    (!elsewhere).then_some(DatagramCheck::Probe)
}

/// Whether servers are found by connection IDs: path MTU discovery of QUIC counts on datagrams that
/// are too long not to arrive.
fn is_quic(proxy: &ProxyDraft) -> bool {
    let by_key = matches!(
        proxy.settings.balance,
        Some(BalanceWord::Hash(Expression {
            fetch: Fetch::QuicCid { .. },
            ..
        }))
    );
    by_key || proxy.settings.udp.quic_lb.is_some()
}

/// The expression with what the proxy says of connection IDs.
pub(super) fn with_cid_length(mut expression: Expression, proxy: &ProxyDraft) -> Expression {
    if let (Fetch::QuicCid { length }, Some(own)) =
        (&mut expression.fetch, proxy.settings.udp.cid_length)
    {
        *length = own;
    }
    expression
}
