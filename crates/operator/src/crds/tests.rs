use super::*;

/// Every schema below `schema`, with its path.
fn each<'a>(path: &str, schema: &'a Value, visit: &mut impl FnMut(&str, &'a Value)) {
    visit(path, schema);
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        each(&format!("{path}.{name}"), below, visit);
    }
    for below in ["items", "additionalProperties"] {
        if schema[below].is_object() {
            each(&format!("{path}[]"), &schema[below], visit);
        }
    }
}

fn schemas() -> Vec<(String, Value)> {
    let found = definitions(Rules::Structural).into_iter().map(|definition| {
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        (kind, schema_of(&definition).clone())
    });
    found.collect()
}

fn schema_of(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

/// The file holds what this program would print; `UPDATE_DOCS=1` makes it so.
fn assert_up_to_date(file: &str, expected: &str) {
    let path = format!("../../{file}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{file}: run the tests of this crate with UPDATE_DOCS=1");
}

#[test]
fn every_field_is_typed_and_described() {
    let others = ("CoreosBackup".to_owned(), schema_of(&coreos_definition()).clone());
    for (kind, schema) in schemas().into_iter().chain([others]) {
        each(&kind, &schema, &mut |path, schema| {
            let kind = schema["type"].as_str().unwrap_or_default();
            assert!(!kind.is_empty(), "{path} has no type");
            let list_or_map = path.ends_with("[]");
            let described = schema["description"].as_str().is_some_and(|text| !text.contains('\n'));
            assert!(list_or_map || described, "{path} is not described in one line: {schema}");
        });
    }
}

#[test]
fn no_value_of_an_enum_is_null_and_no_format_is_foreign() {
    let known = ["date-time", "int32", "int64"];
    for (kind, schema) in schemas() {
        each(&kind, &schema, &mut |path, schema| {
            let nothing =
                schema["enum"].as_array().is_some_and(|values| values.contains(&Value::Null));
            assert!(!nothing, "{path} can be null");
            let format = schema["format"].as_str();
            assert!(format.is_none_or(|format| known.contains(&format)), "{path}: {format:?}");
            for field in ["nullable", "title", "$ref", "anyOf", "allOf"] {
                assert!(schema.get(field).is_none(), "{path} has {field}");
            }
        });
    }
}

#[test]
fn of_several_ways_to_say_a_thing_exactly_one_is_wanted() {
    let mut found = Vec::new();
    for (kind, schema) in schemas() {
        each(&kind, &schema, &mut |path, schema| {
            // A status has a copy of what a spec had.
            let choices = schema["oneOf"].as_array().filter(|_| path.contains(".spec"));
            let Some(choices) = choices else { return };
            for choice in choices {
                let field = choice["required"][0].as_str().unwrap();
                assert!(schema["properties"][field].is_object(), "{path} has no {field}");
            }
            found.push(path.to_owned());
        });
    }
    let expected = [
        "EtcdBackup.spec.cluster",
        "EtcdBackupSchedule.spec.template.spec.cluster",
        "EtcdRestore.spec.source",
        "EtcdRestore.spec.target",
        "EtcdRestore.spec.target.statefulSet.cluster",
    ];
    assert_eq!(found, expected);
}

#[test]
fn cel_is_there_only_when_asked_for() {
    assert!(!yaml(Rules::Structural).contains("x-kubernetes-validations"));
    let with: Vec<_> = definitions(Rules::Cel)
        .into_iter()
        .filter(|definition| definition.to_string().contains("self == oldSelf"))
        .map(|definition| definition["metadata"]["name"].clone())
        .collect();
    assert_eq!(with, ["etcdbackups.lifeboat.dev", "etcdrestores.lifeboat.dev"]);
}

#[test]
fn what_is_printed_reads_back_as_what_was_meant() {
    for rules in [Rules::Structural, Rules::Cel] {
        let text = yaml(rules);
        let read: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(read, definitions(rules));
    }
}

#[test]
fn what_the_coreos_operator_has_stored_is_taken_and_what_it_kept_is_pruned() {
    let definition = coreos_definition();
    assert_eq!(definition["metadata"]["name"], coreos_name());
    assert_eq!(definition["spec"]["preserveUnknownFields"], false);
    let status = &schema_of(&definition)["properties"]["status"]["properties"];
    // It wrote null for a time that there was not, and a reason with a capital.
    assert_eq!(status["lastSuccessDate"]["nullable"], true);
    assert_eq!(status["Reason"]["type"], "string");
    each("", schema_of(&definition), &mut |path, schema| {
        assert!(schema["default"] != "", "{path}");
    });
    let spec = &schema_of(&definition)["properties"]["spec"];
    assert_eq!(spec["required"], json!(["storageType"]));
    assert_eq!(spec["properties"]["clientTLSSecret"]["type"], "string");
    let read: Vec<Value> = serde_saphyr::from_multiple(&coreos_yaml()).unwrap();
    assert_eq!(read, [definition]);
}

#[test]
fn whoever_lacks_the_definition_of_coreos_is_told_how_to_get_that() {
    let ours = check(EtcdBackup::crd_name(), None).unwrap_err();
    assert!(!ours.remedy().contains("--coreos-compat"));
    let theirs = check(coreos_name(), Some(&CoreosBackup::crd())).unwrap_err();
    assert_eq!(theirs, CrdProblem::Older { name: coreos_name().to_owned(), found: 0 });
    assert!(theirs.remedy().contains("lifeboat crds --coreos-compat | "));
}

#[test]
fn definitions_that_are_missing_or_older_are_told_apart_from_newer_ones() {
    let mut definition = EtcdBackup::crd();
    let name = EtcdBackup::crd_name();
    let older = |found| Err(CrdProblem::Older { name: name.to_owned(), found });
    assert_eq!(check(name, None), Err(CrdProblem::Missing(name.to_owned())));
    assert_eq!(check(name, Some(&definition)), older(0));
    for (number, expected) in
        [("0", older(0)), (&SCHEMA.to_string(), Ok(())), ("99999", Ok(())), ("new", older(0))]
    {
        definition.annotations_mut().insert(SCHEMA_ANNOTATION.to_owned(), number.to_owned());
        assert_eq!(check(name, Some(&definition)), expected, "{number}");
    }
}

#[test]
fn the_files_of_the_base_and_of_the_chart_are_what_is_printed() {
    assert_up_to_date("deploy/operator/base/crds.yaml", &yaml(Rules::Structural));
    assert_up_to_date("charts/lifeboat/files/crds.yaml", &yaml(Rules::Structural));
    for file in ["deploy/operator/coreos-compat/crd.yaml", "charts/lifeboat/files/crd-coreos.yaml"]
    {
        assert_up_to_date(file, &coreos_yaml());
    }
}

#[test]
fn the_reference_says_what_the_definitions_say() {
    let page = reference_page();
    for row in [
        "| `cluster` | [Cluster](#cluster), **required** |",
        "| `source.store.cluster` | text, **required** |",
        "| `target.statefulSet.dataDir` | text |",
        "| `template.spec` | [spec of an EtcdBackup](#etcdbackup-spec), **required** |",
        "| `service.scheme` | `http`, `https`, default `http` |",
        "| `s3.path` | text, **required** | `BUCKET/PATH/FILE`.",
    ] {
        assert!(page.contains(row), "{row}");
    }
    assert_up_to_date("docs/kubernetes-reference.md", &page);
}
