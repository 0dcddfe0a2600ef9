//! Identities that an operator gives to proxies and servers (`guid`).

/// Longest identity, HAProxy's.
const LENGTH_MAX: usize = 127;

/// An identity as it may be written.
pub(in crate::config) fn parse(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("'guid' expects an identity as argument.".to_owned());
    }
    if text.len() > LENGTH_MAX {
        return Err(format!(
            "'guid' : '{text}' has more than {LENGTH_MAX} characters."
        ));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_');
    match text.chars().find(|c| !allowed(*c)) {
        None => Ok(text.to_owned()),
        Some(c) => Err(format!(
            "'guid' : character '{c}' is not permitted in '{text}'."
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_short_and_plain() {
        let longest = "a".repeat(LENGTH_MAX);
        for good in ["a", "Web-1.eu:80_x", &longest] {
            assert_eq!(parse(good).as_deref(), Ok(good));
        }
        for bad in ["", "a b", "é", "a/b", &format!("{longest}a")] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
