//! CEL selectors, as far as device classes of this driver use them: comparisons joined by `&&`, of
//! `device.driver` or `device.attributes['DOMAIN'].NAME` with a literal. Anything else is an error.

use k8s_openapi::api::resource::v1::{Device, DeviceAttribute};

/// Why a selector cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector `{expression}`: {why}")]
pub struct SelectorError {
    expression: String,
    why: &'static str,
}

/// A value in an expression.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum CelValue {
    Bool(bool),
    Int(i64),
    Text(String),
}

/// The attribute of this domain and name; without a domain in the slice, it is the driver's.
pub(super) fn attribute<'a>(
    device: &'a Device,
    driver: &str,
    domain: &str,
    name: &str,
) -> Option<&'a DeviceAttribute> {
    let attributes = device.attributes.as_ref()?;
    let qualified = attributes.get(&format!("{domain}/{name}"));
    qualified.or_else(|| attributes.get(name).filter(|_| domain == driver))
}

/// Whether the device meets the expression. An attribute that is missing is an error in CEL; the
/// device does not meet the expression then.
pub(super) fn is_selected(
    expression: &str,
    driver: &str,
    device: &Device,
) -> Result<bool, SelectorError> {
    for term in expression.split("&&").map(str::trim) {
        let holds = is_met(term, driver, device)
            .map_err(|why| SelectorError { expression: expression.to_owned(), why })?;
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_met(term: &str, driver: &str, device: &Device) -> Result<bool, &'static str> {
    const OPERATORS: [&str; 6] = ["==", "!=", "<=", ">=", "<", ">"];
    let split = OPERATORS.iter().find_map(|operator| {
        let (left, right) = term.split_once(operator)?;
        Some((left.trim(), *operator, right.trim()))
    });
    let (left, operator, right) = split.unwrap_or((term, "==", "true"));
    let right = literal(right).ok_or("only literals are compared with")?;
    let Some(left) = operand(left, driver, device)? else { return Ok(false) };
    let order = left
        .partial_cmp(&right)
        .filter(|_| std::mem::discriminant(&left) == std::mem::discriminant(&right));
    let order = order.ok_or("values of different types are compared")?;
    Ok(match operator {
        "==" => order.is_eq(),
        "!=" => order.is_ne(),
        "<=" => order.is_le(),
        ">=" => order.is_ge(),
        "<" => order.is_lt(),
        _ => order.is_gt(),
    })
}

/// None where the device has no such attribute.
fn operand(text: &str, driver: &str, device: &Device) -> Result<Option<CelValue>, &'static str> {
    if text == "device.driver" {
        return Ok(Some(CelValue::Text(driver.to_owned())));
    }
    let path = text.strip_prefix("device.attributes[").and_then(|rest| rest.split_once("]."));
    let (domain, name) = path.ok_or("only device.driver and device.attributes are known")?;
    if !name.chars().all(|each| each.is_ascii_alphanumeric() || each == '_') {
        return Err("only comparisons joined by && are known");
    }
    let Some(CelValue::Text(domain)) = literal(domain) else {
        return Err("the domain of an attribute is a text");
    };
    Ok(attribute(device, driver, &domain, name).and_then(value_of))
}

fn value_of(attribute: &DeviceAttribute) -> Option<CelValue> {
    let DeviceAttribute { bool, int, string, version } = attribute;
    let text = string.clone().or_else(|| version.clone());
    bool.map(CelValue::Bool).or(int.map(CelValue::Int)).or(text.map(CelValue::Text))
}

fn literal(text: &str) -> Option<CelValue> {
    let quoted = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    match (quoted('"').or_else(|| quoted('\'')), text) {
        (Some(text), _) => Some(CelValue::Text(text.to_owned())),
        (None, "true") => Some(CelValue::Bool(true)),
        (None, "false") => Some(CelValue::Bool(false)),
        (None, number) => number.parse().ok().map(CelValue::Int),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DRIVER: &str = "gpu.iluvatar.com";

    fn selects(expression: &str) -> Result<bool, SelectorError> {
        let attributes = json!({
            "chips": { "int": 2 }, "wholeBoard": { "bool": true }, "model": { "string": "BI-V150" },
            "resource.kubernetes.io/pcieRoot": { "string": "pci0000:10" },
        });
        let device = json!({ "name": "board-0000-13-00-0", "attributes": attributes });
        is_selected(expression, DRIVER, &serde_json::from_value(device).unwrap())
    }

    #[test]
    fn the_expressions_of_our_device_classes_are_evaluated() {
        for (expression, is_met) in [
            ("device.driver == 'gpu.iluvatar.com'", true),
            (
                "device.driver == 'gpu.iluvatar.com' && \
                 device.attributes['gpu.iluvatar.com'].wholeBoard",
                true,
            ),
            ("device.attributes[\"gpu.iluvatar.com\"].chips == 1", false),
            ("device.attributes['gpu.iluvatar.com'].chips >= 2", true),
            ("device.attributes['gpu.iluvatar.com'].model == \"BI-V150\"", true),
            ("device.attributes['resource.kubernetes.io'].pcieRoot != 'pci0000:10'", false),
            ("device.attributes['gpu.iluvatar.com'].missing == 1", false),
        ] {
            assert_eq!(selects(expression), Ok(is_met), "{expression}");
        }
    }

    #[test]
    fn other_expressions_are_refused_and_never_guessed() {
        for expression in [
            "has(device.capacity)",
            "device.attributes['gpu.iluvatar.com'].chips == '1'",
            "device.attributes['gpu.iluvatar.com'].chips in [1, 2]",
        ] {
            let error = selects(expression).unwrap_err().to_string();
            assert!(error.starts_with(&format!("selector `{expression}`: ")), "{error}");
        }
    }
}
