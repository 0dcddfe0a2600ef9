//! The ports that the balancer itself chooses for its connections to servers.

/// `tune.source-ports`, with what the system says of its ports.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SourcePorts {
    /// Whether it chooses ports.
    pub choice: PortChoice,
    /// The ports to choose from, the lowest and the highest; `None` = the upper half of the
    /// system's.
    pub range: Option<(u16, u16)>,
    /// What the system has.
    pub system: LocalPorts,
}

/// When ports are chosen by the balancer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PortChoice {
    /// Where a `source` is set, and where connections that have ended make the system search.
    #[default]
    Auto,
    /// For all connections.
    Always,
    /// Never.
    Off,
}

/// The system's ports for connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalPorts {
    /// The lowest one that it chooses.
    pub low: u16,
    /// The highest one.
    pub high: u16,
    /// Ranges that it leaves out because they are meant for somebody.
    pub reserved: Vec<(u16, u16)>,
    /// Where it uses a port again a second after its connection towards the same server has ended.
    pub reuse: PortReuse,
}

/// Towards whom the system uses a port again before its TIME_WAIT is over (`tcp_tw_reuse`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PortReuse {
    /// Nobody.
    Never,
    /// This machine.
    #[default]
    Loopback,
    /// Everybody.
    Always,
}

impl Default for LocalPorts {
    /// What Linux has unless told otherwise.
    fn default() -> LocalPorts {
        LocalPorts {
            low: 32_768,
            high: 60_999,
            reserved: Vec::new(),
            reuse: PortReuse::default(),
        }
    }
}

impl LocalPorts {
    /// How many it chooses from.
    pub fn count(&self) -> u32 {
        let among = |low: u16, high: u16| (u32::from(high) + 1).saturating_sub(u32::from(low));
        let reserved = self
            .reserved
            .iter()
            .map(|(low, high)| among(self.low.max(*low), self.high.min(*high)));
        let all = among(self.low, self.high);
        all.saturating_sub(reserved.sum()).max(1)
    }
}

impl SourcePorts {
    /// The ports to choose from, the lowest and the highest, before what is reserved is left out.
    ///
    /// The upper half has as many ports of each parity as the lower one, which is left to others:
    /// connect(2) looks for a port among those of the parity of the lowest first, bind(2) among the
    /// others, and with SO_REUSEADDR in the lower half first.
    pub fn slice(&self) -> (u16, u16) {
        self.range.unwrap_or_else(|| {
            let LocalPorts { low, high, .. } = self.system;
            (low + high.saturating_sub(low).div_ceil(2), high)
        })
    }

    /// The ports of the slice that are left out.
    pub fn left_out(&self) -> impl Iterator<Item = u16> {
        self.system
            .reserved
            .iter()
            .flat_map(|(low, high)| *low..=*high)
    }

    /// Whether no port is left to choose.
    pub fn is_empty(&self) -> bool {
        let (low, high) = self.slice();
        let reserved = |port: u16| {
            let mut ranges = self.system.reserved.iter();
            ranges.any(|(from, to)| (*from..=*to).contains(&port))
        };
        (low..=high).all(reserved)
    }

    /// Whether programs beside the balancer have no port left that the system chooses.
    pub fn takes_all(&self) -> bool {
        let (low, high) = self.slice();
        low <= self.system.low && self.system.high <= high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_system(low: u16, high: u16, reserved: &[(u16, u16)]) -> SourcePorts {
        SourcePorts {
            system: LocalPorts {
                low,
                high,
                reserved: reserved.to_vec(),
                ..LocalPorts::default()
            },
            ..SourcePorts::default()
        }
    }

    #[test]
    fn the_upper_half_is_ours() {
        let usual = SourcePorts::default();
        assert_eq!(usual.slice(), (46_884, 60_999));
        assert_eq!(usual.system.count(), 28_232);
        assert!(!usual.takes_all() && !usual.is_empty());
        for (low, high, from) in [(10, 13, 12), (10, 12, 11), (1, 65_535, 32_768)] {
            let ports = of_system(low, high, &[]);
            assert_eq!(ports.slice(), (from, high));
            assert!(!ports.takes_all());
        }
        let single = of_system(10, 10, &[]);
        assert_eq!(single.slice(), (10, 10));
        assert!(single.takes_all());
    }

    #[test]
    fn reserved_ports_are_nobodys() {
        let ports = of_system(1000, 1009, &[(1, 3), (1001, 1002), (1008, 1020)]);
        assert_eq!(ports.system.count(), 6);
        assert!(!ports.is_empty());
        let left_out: Vec<u16> = ports.left_out().collect();
        assert!(left_out.contains(&1009) && left_out.contains(&1001));
        assert!(of_system(1000, 1009, &[(1005, 1009)]).is_empty());
        assert_eq!(of_system(1, 65_535, &[(1, 65_535)]).system.count(), 1);
    }
}
