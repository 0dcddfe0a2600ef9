//! `show schema json`: what answers in JSON look like, as a JSON schema.

use super::typed::{NATURES, ORIGINS, SCOPES};

/// Largest integer that every reader of JSON keeps exactly.
const INTEGER_MAX: i64 = (1 << 53) - 1;

/// The schema, on one line.
pub(super) fn text() -> String {
    let reference = |name: &str| format!("{{\"$ref\":\"#/definitions/{name}\"}}");
    let integer = |low: i64| format!("{{\"type\":\"integer\",\"minimum\":{low}}}");
    let shared = format!(
        "\"field\":{},\"processNum\":{},\"tags\":{},\"value\":{}",
        reference("field"),
        reference("processNum"),
        reference("tags"),
        reference("typedValue")
    );
    let info = format!(
        "{{\"title\":\"Info\",\"type\":\"array\",\"items\":{{\"title\":\"InfoItem\",\
         \"type\":\"object\",\"properties\":{{{shared}}},\
         \"required\":[\"field\",\"processNum\",\"tags\",\"value\"]}}}}"
    );
    let stat = format!(
        "{{\"title\":\"Stat\",\"type\":\"array\",\"items\":{{\"type\":\"array\",\
         \"items\":{{\"title\":\"StatItem\",\"type\":\"object\",\"properties\":{{\
         \"objType\":{{\"enum\":[\"Frontend\",\"Backend\",\"Listener\",\"Server\",\"Unknown\"]}},\
         \"proxyId\":{zero},\"id\":{zero},{shared}}},\"required\":[\"objType\",\"proxyId\",\"id\",\
         \"field\",\"processNum\",\"tags\",\"value\"]}}}}}}",
        zero = integer(0)
    );
    let words = |table: &[(u8, &str)]| {
        let words = table.iter().map(|(_, word)| format!("\"{word}\""));
        let words: Vec<String> = words.chain(["\"Unknown\"".to_owned()]).collect();
        format!("{{\"type\":\"string\",\"enum\":[{}]}}", words.join(","))
    };
    let tags = format!(
        "{{\"type\":\"object\",\"properties\":{{\"origin\":{},\"nature\":{},\"scope\":{}}},\
         \"required\":[\"origin\",\"nature\",\"scope\"]}}",
        words(ORIGINS),
        words(NATURES),
        words(SCOPES)
    );
    let number = |name: &str, low: i64, high: i64| {
        value(
            name,
            &format!("{{\"type\":\"integer\",\"minimum\":{low},\"maximum\":{high}}}"),
        )
    };
    let values = [
        number("s32", i32::MIN.into(), i32::MAX.into()),
        number("s64", -INTEGER_MAX, INTEGER_MAX),
        number("u32", 0, u32::MAX.into()),
        number("u64", 0, INTEGER_MAX),
        value("str", "{\"type\":\"string\"}"),
        value("flt", "{\"type\":\"number\"}"),
    ];
    format!(
        "{{\"$schema\":\"http://json-schema.org/draft-04/schema#\",\"oneOf\":[{info},{stat}],\
         \"definitions\":{{\"field\":{{\"type\":\"object\",\"properties\":{{\"pos\":{},\
         \"name\":{{\"type\":\"string\"}}}},\"required\":[\"pos\",\"name\"]}},\"processNum\":{},\
         \"tags\":{tags},\"typedValue\":{{\"oneOf\":[{}]}}}}}}\n",
        integer(0),
        integer(1),
        values.join(",")
    )
}

fn value(name: &str, what: &str) -> String {
    format!(
        "{{\"type\":\"object\",\"properties\":{{\"type\":{{\"type\":\"string\",\
         \"enum\":[\"{name}\"]}},\"value\":{what}}},\"required\":[\"type\",\"value\"]}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_json_and_every_reference_leads_somewhere() {
        let text = text();
        assert_eq!(text.lines().count(), 1);
        let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(schema["oneOf"][0]["title"], "Info");
        assert_eq!(schema["oneOf"][1]["title"], "Stat");
        let references = text.split("#/definitions/").skip(1);
        for name in references.map(|rest| rest.split('"').next().unwrap()) {
            assert!(schema["definitions"][name].is_object(), "{name}");
        }
        let natures = &schema["definitions"]["tags"]["properties"]["nature"]["enum"];
        assert!(natures.as_array().unwrap().len() > NATURES.len());
    }
}
