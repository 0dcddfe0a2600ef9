//! The outside world as the config layer asks for it: variables, files, names, users, addresses.
