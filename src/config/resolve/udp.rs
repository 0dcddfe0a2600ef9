//! What `mode udp` adds to a proxy, from what its lines say.

use super::Builder;
use crate::config::draft::{Mode, ProxyDraft, Settings};
use crate::config::plan::{UdpBack, UdpFront};

impl Builder<'_, '_> {
    /// The accepting side.
    pub(in crate::config) fn udp_front(&self, draft: &ProxyDraft) -> Option<UdpFront> {
        let settings = of_datagrams(&draft.settings)?;
        let (udp, timeouts) = (settings.udp, settings.timeouts);
        Some(UdpFront {
            idle_ms: timeouts.udp.or(timeouts.client).unwrap_or(0),
            unconfirmed_ms: timeouts
                .udp_unconfirmed
                .unwrap_or(UdpFront::UNCONFIRMED_DEFAULT_MS),
            requests_max: udp.requests_max,
            responses_max: udp.responses_max,
            source_flows_max: udp.source_flows_max,
            log: udp.log,
            fragment: udp.fragment.unwrap_or(true),
            header: udp.header,
        })
    }

    /// The connecting side.
    pub(in crate::config) fn udp_back(&self, draft: &ProxyDraft) -> Option<UdpBack> {
        let settings = of_datagrams(&draft.settings)?;
        let (udp, timeouts) = (settings.udp, settings.timeouts);
        let mapping_ms = timeouts.udp_mapping.unwrap_or(UdpBack::MAPPING_DEFAULT_MS);
        Some(UdpBack {
            idle_ms: timeouts.udp.or(timeouts.server).unwrap_or(0),
            sockets: udp.sockets,
            mapping_ms: udp.bidirectional.then_some(mapping_ms),
            fragment: udp.fragment.unwrap_or(true),
            header: udp.header,
        })
    }
}

/// The settings of a proxy in `mode udp`.
fn of_datagrams(settings: &Settings) -> Option<&Settings> {
    Some(settings).filter(|settings| settings.mode == Mode::Udp)
}
