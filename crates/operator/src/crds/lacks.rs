//! Which field a server's definition lacks: it would drop what an object says there, without a word.

use serde_json::Value;

/// The first field that one definition has and another has not, as `spec.target.pvc`.
pub(super) fn first(ours: &Value, theirs: &Value) -> Option<String> {
    let versions = |definition: &Value| definition["spec"]["versions"].as_array().cloned();
    let ours = versions(ours)?.into_iter().next()?;
    let all = versions(theirs).unwrap_or_default();
    let theirs = all.into_iter().find(|version| version["name"] == ours["name"]);
    let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
    in_schema(&schema(&ours), &theirs.as_ref().map(schema).unwrap_or_default(), "")
}

fn in_schema(ours: &Value, theirs: &Value, path: &str) -> Option<String> {
    let properties = ours["properties"].as_object().into_iter().flatten();
    let of_properties = properties.map(|(name, ours)| {
        (
            ours,
            &theirs["properties"][name],
            format!("{path}{}{name}", if path.is_empty() { "" } else { "." }),
        )
    });
    let of_rest = ["items", "additionalProperties"]
        .map(|part| (&ours[part], &theirs[part], path.to_owned()))
        .into_iter()
        .filter(|(ours, ..)| ours.is_object());
    of_properties.chain(of_rest).find_map(|(ours, theirs, path)| match theirs.is_null() {
        true => Some(path),
        false => in_schema(ours, theirs, &path),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crds::{Rules, definitions};

    #[test]
    fn a_definition_that_lost_a_field_is_found_out_however_new_it_says_it_is() {
        for ours in definitions(Rules::Structural) {
            assert_eq!(first(&ours, &ours), None);
        }
        let ours = &definitions(Rules::Structural)[1];
        let cluster = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/cluster";
        let mut theirs = ours.clone();
        let tls = theirs.pointer_mut(&format!("{cluster}/properties/tls/properties")).unwrap();
        tls.as_object_mut().unwrap().remove("serverName");
        assert_eq!(first(ours, &theirs).as_deref(), Some("spec.cluster.tls.serverName"));
        assert_eq!(first(&theirs, ours), None, "more fields do no harm");
    }
}
