//! PROXY headers of datagrams: who a flow is really from, and what servers are told of it.
//!
//! With `udp-proxy-header first` a header begins the first datagram of a flow, with `every` each of
//! them. A sender that begins anew while the flow is still here announces itself again: the header
//! is taken off, and another client is another flow. Replies carry none, either way.

use std::net::SocketAddr;

use super::batch::{Route, Singles};
use super::counts::DatagramCount;
use super::end::who;
use super::flow_data::FlowData;
use super::{Shard, Udp};
use crate::base::send_proxy::SendProxy;
use crate::config::plan::UdpHeader;
use crate::flow::proxy_protocol::{Fields, HeaderBytes, datagram, tlv};
use crate::flow::udp::{Flow, FlowId, FlowKey, Reason};
use crate::limits;
use crate::ring::{Arrival, Kernel, Payload};

/// What the header of a flow has said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Origin {
    pub(super) client: SocketAddr,
    pub(super) local: SocketAddr,
    tlvs: Option<Box<[u8]>>,
}

/// What PROXY headers say of a flow: the one that it came with, and those that its servers get.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) origin: Option<Origin>,
    /// Its number for the id that servers get of it, 0 = none has asked.
    pub(super) unique_number: u64,
}

impl Told {
    /// Of a flow that came with a header.
    pub(super) fn by(origin: Origin) -> Told {
        Told {
            origin: Some(origin),
            unique_number: 0,
        }
    }
}

/// A flow's ends as limits, choices, logs and servers see them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ends {
    pub(super) key: FlowKey,
    /// Who it is from.
    pub(super) client: SocketAddr,
    /// Where that one wanted to go.
    pub(super) local: Option<SocketAddr>,
}

impl Udp {
    /// The ends of a flow with such a key.
    pub(super) fn ends(&self, key: &FlowKey, origin: Option<&Origin>) -> Ends {
        let listener = &self.listeners[usize::from(key.listener())];
        match origin {
            Some(origin) => Ends {
                key: *key,
                client: origin.client,
                local: Some(origin.local),
            },
            None => Ends {
                key: *key,
                client: key.source(),
                local: listener.local(key.local()),
            },
        }
    }

    /// Those of a flow that is there.
    pub(super) fn ends_of(&self, flow: &Flow<FlowData>) -> Ends {
        self.ends(flow.key(), flow.data.origin())
    }
}

impl<K: Kernel> Shard<K> {
    /// A datagram at a listener that expects headers.
    pub(super) fn relay_announced(
        &mut self,
        udp: &mut Udp,
        key: &FlowKey,
        arrival: &Arrival,
        whole: Payload,
    ) {
        let listener = &udp.listeners[usize::from(key.listener())];
        let every = listener.rules.header == UdpHeader::Every;
        let bytes = self.kernel.payload(whole);
        let Ok(header) = datagram::read(bytes, limits::PROXY_HEADER_MAX) else {
            if every || udp.flows.find(key).is_none() {
                udp.counts.one(DatagramCount::HeadersMalformed);
                return;
            }
            return self.relay_single(udp, key, arrival, whole, None);
        };
        let named = header.addresses.map(|(client, _)| client);
        let length = u32::try_from(header.payload_at).unwrap_or(u32::MAX);
        let payload = Payload {
            offset: whole.offset + length,
            length: whole.length - length,
            ..whole
        };
        if every {
            let key = FlowKey::new(key.listener(), key.client(), key.local(), named);
            return self.relay_single(udp, &key, arrival, payload, Some(whole));
        }
        if let Some(id) = udp.flows.find(key)
            && let Some(flow) = udp.flows.get(id)
            && udp.ends_of(flow).client != named.unwrap_or(key.source())
        {
            let reason = Reason::Requests;
            self.end_flow(udp, id, reason, who(reason));
        }
        self.relay_single(udp, key, arrival, payload, Some(whole));
    }

    /// What the header of a flow's first datagram says, to keep.
    pub(super) fn origin_of(&self, announced: Option<Payload>) -> Option<Origin> {
        let bytes = self.kernel.payload(announced?);
        let header = datagram::read(bytes, limits::PROXY_HEADER_MAX).ok()?;
        let (client, local) = header.addresses?;
        let tlvs = header.kept_tlvs();
        Some(Origin {
            client,
            local,
            tlvs,
        })
    }

    /// Lays datagrams for a server that wants headers: before the first of the flow, or before
    /// each. Nothing is merged with a datagram that has one.
    pub(super) fn add_announced(
        &mut self,
        udp: &mut Udp,
        id: FlowId,
        route: &Route,
        arrival: &Arrival,
        payload: Payload,
        wanted: SendProxy,
    ) {
        let every = udp.upstreams.at(udp.upstream_of(id)).rules.header == UdpHeader::Every;
        let (class, segment) = (arrival.traffic_class, arrival.segment);
        let header = match udp.flows.get_mut(id) {
            Some(flow) if every || !flow.header_sent => {
                flow.header_sent = true;
                self.header_of(udp, id, wanted)
            }
            _ => None,
        };
        let Some(flow) = udp.flows.get_mut(id) else {
            return;
        };
        let Some(header) = header else {
            let open = &mut flow.data.up;
            return udp.batches.add(open, route, class, payload, segment, &[]);
        };
        let mut first = header.as_bytes();
        for single in Singles::new(payload, segment.unwrap_or(0).into()) {
            let open = &mut flow.data.up;
            udp.batches.add(open, route, class, single, None, first);
            if !every {
                first = &[];
            }
        }
    }

    /// The header that a flow's server gets.
    fn header_of(&mut self, udp: &mut Udp, id: FlowId, wanted: SendProxy) -> Option<HeaderBytes> {
        let flow = udp.flows.get(id)?;
        let ends = udp.ends_of(flow);
        let origin = flow.data.origin();
        let tlvs = origin.and_then(|origin| origin.tlvs.as_deref());
        let received = |kind| tlv::value(tlvs.unwrap_or_default(), kind);
        let told = flow.data.told.as_ref();
        let number = match told.map_or(0, |told| told.unique_number) {
            0 if wanted.unique_id && received(tlv::UNIQUE_ID).is_empty() => {
                self.unique_ids.number()
            }
            number => number,
        };
        let own_id = (number > 0).then(|| self.unique_ids.id(number));
        let fields = Fields {
            unique_id: match &own_id {
                Some(id) => id.as_bytes(),
                None => received(tlv::UNIQUE_ID),
            },
            authority: received(tlv::AUTHORITY),
        };
        let addresses = ends.local.map(|local| (ends.client, local));
        let header = datagram::header(wanted, addresses, fields);
        if number > 0 {
            let told = &mut udp.flows.get_mut(id)?.data.told;
            told.get_or_insert_default().unique_number = number;
        }
        Some(header)
    }
}
