//! The pure part of relaying datagrams: which flow one belongs to, and from which socket it goes on.
