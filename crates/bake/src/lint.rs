//! Looking at a finished root with EC2's eyes, before a disk is made of it.

use ::lint::{Architecture, BootMode, DataFileSystem, Facts, Finding, RULES, Severity};
use recipe::{AllowedFinding, Arch, Code, Diagnostic, Diagnostics, Recipe, nearest};

use crate::volumes::VolumeIds;
use crate::{Error, Report};

/// Says so where a recipe allows a finding that there is not.
pub(crate) fn check_names(recipe: &Recipe) -> Result<(), Diagnostics> {
    let unknown: Vec<Diagnostic> = recipe
        .allow
        .iter()
        .filter(|allowed| RULES.iter().all(|rule| rule.name != allowed.finding))
        .map(|allowed| {
            let help = match nearest(&allowed.finding, RULES.iter().map(|rule| rule.name)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "a finding's name stands in brackets in its message: error[private-key]".to_owned(),
            };
            let message = format!("there is no finding `{}`", allowed.finding);
            allowed.span.error(Code::AllowedFinding, message, "unknown").help(help)
        })
        .collect();
    if unknown.is_empty() { Ok(()) } else { Err(Diagnostics(unknown)) }
}

/// Tells the report every warning, and what the recipe allows; an error lists what must not be in an image.
pub(crate) fn examine(recipe: &Recipe, built: &rootfs::Built, report: &dyn Report) -> Result<(), Error> {
    let root = recipe.root_volume().ok_or_else(|| crate::no_root(recipe))?;
    let data: Vec<DataFileSystem<'_>> = crate::data_volumes(recipe)
        .map(|volume| DataFileSystem {
            uuid: VolumeIds::of(recipe, volume).file_system,
            mount: volume.mount.as_deref(),
        })
        .collect();
    let facts = Facts {
        architecture: match recipe.arch {
            Arch::X86_64 => Architecture::X86_64,
            Arch::Aarch64 => Architecture::Aarch64,
        },
        boot_mode: match recipe.image.boot_mode {
            recipe::BootMode::LegacyBios => BootMode::LegacyBios,
            recipe::BootMode::Uefi => BootMode::Uefi,
            recipe::BootMode::UefiPreferred => BootMode::UefiPreferred,
        },
        has_bios_boot: built.bios.is_some(),
        root_uuid: VolumeIds::of(recipe, root).file_system,
        ena: recipe.image.ena,
        default_user: recipe.default_user().map(|user| user.name.as_str()),
        data: &data,
    };
    let findings = ::lint::lint(&built.tree, &built.esp, &facts)?;
    let judged = judge(findings, recipe);
    for line in judged.told {
        report.line(&line);
    }
    if judged.refused.is_empty() { Ok(()) } else { Err(Error::Unfit { findings: judged.refused.join("\n") }) }
}

/// What comes of an image's findings.
struct Judged {
    /// What people should read, a finding each.
    told: Vec<String>,
    /// What stops the bake, a finding each, with the entry that would allow it.
    refused: Vec<String>,
}

fn judge(findings: Vec<Finding>, recipe: &Recipe) -> Judged {
    let allowed = &recipe.allow;
    let mut judged = Judged { told: Vec::new(), refused: Vec::new() };
    let mut used = vec![false; allowed.len()];
    for finding in findings {
        let file = finding.file.as_ref().map(|file| format!("/{file}"));
        let fits = |entry: &AllowedFinding| entry.finding == finding.rule && entry.file == file;
        if let Some(at) = allowed.iter().position(fits) {
            used[at] = true;
            let place = file.map(|file| format!(" {file}")).unwrap_or_default();
            judged.told.push(format!("allowed[{}]{place}: {}", finding.rule, allowed[at].reason));
        } else if finding.severity == Severity::Error {
            let place = file.as_deref().and_then(|file| laid_at(recipe, file)).unwrap_or_default();
            let entry = entry(finding.rule, file.as_deref());
            judged.refused.push(format!("{finding}{place}\n  = if it is meant: {entry}"));
        } else {
            judged.told.push(finding.to_string());
        }
    }
    for (entry, _) in allowed.iter().zip(used).filter(|(_, used)| !used) {
        let message = format!("the finding `{}` is allowed, but it does not occur", entry.finding);
        let label = match &entry.file {
            Some(file) => format!("nothing is found in {file}"),
            None => "nothing is found that is about no file".to_owned(),
        };
        let unused = entry.span.warning(Code::AllowedFinding, message, label);
        let help = "take the entry away, or mend its `file`: it would hide a later mistake";
        judged.told.push(Diagnostics::from(unused.help(help)).to_string().trim_end().to_owned());
    }
    judged
}

/// The line that says where a recipe lays a file down; `None`: it does not.
fn laid_at(recipe: &Recipe, file: &str) -> Option<String> {
    let holds =
        |laid: &str| file.strip_prefix(laid).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let laid = recipe.files.iter().filter(|laid| holds(&laid.path)).max_by_key(|laid| laid.path.len())?;
    let (line, column) = laid.span.position();
    Some(format!("\n --> {}:{line}:{column}", laid.span.file().display()))
}

/// What to write into a recipe to allow a finding.
fn entry(rule: &str, file: Option<&str>) -> String {
    let file = match file {
        Some(file) if file.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+@".contains(c)) => {
            format!("file: {file}, ")
        }
        // A JSON text is one of YAML, too.
        Some(file) => format!("file: {}, ", serde_json::Value::from(file)),
        None => String::new(),
    };
    format!("`allow: [{{finding: {rule}, {file}reason: …}}]` in the recipe")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(folder: &std::path::Path, allow: &str) -> Recipe {
        recipe_of(folder, &format!("allow: {allow}"))
    }

    fn recipe_of(folder: &std::path::Path, text: &str) -> Recipe {
        let path = folder.join("recipe.yaml");
        std::fs::create_dir_all(folder.join("keys")).unwrap();
        std::fs::write(&path, format!("name: web\n{text}\n")).unwrap();
        let source = recipe::load(&path, &recipe::LoadOptions::default()).unwrap();
        source.for_arch(Arch::X86_64).unwrap()
    }

    fn finding(severity: Severity, rule: &'static str, file: Option<&str>) -> Finding {
        let file = file.map(|file| tree::TreePath::new(file.as_bytes()).unwrap());
        Finding { severity, rule, file, reason: "line 1 begins a key".into(), advice: "leave it out".into() }
    }

    #[test]
    fn what_a_recipe_allows_is_told_and_stops_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let key = "[{finding: private-key, file: /etc/ssl/private/site.key, reason: a test key}]";
        let recipe = recipe(folder.path(), key);
        let findings = || {
            vec![
                finding(Severity::Error, "private-key", Some("etc/ssl/private/site.key")),
                finding(Severity::Error, "private-key", Some("etc/other key")),
                finding(Severity::Warning, "resolver", None),
            ]
        };
        let judged = judge(findings(), &recipe);
        assert_eq!(
            judged.told,
            [
                "allowed[private-key] /etc/ssl/private/site.key: a test key",
                "warning[resolver] line 1 begins a key; leave it out"
            ]
        );
        assert_eq!(
            judged.refused,
            ["error[private-key] /etc/other key: line 1 begins a key; leave it out\n  = if it is meant: \
              `allow: [{finding: private-key, file: \"/etc/other key\", reason: …}]` in the recipe"]
        );
        let recipe = recipe_of(folder.path(), "files: [{path: /etc/ssl/private, source: keys}]");
        let refused = judge(findings(), &recipe).refused;
        assert_eq!(refused.len(), 2);
        assert!(refused[0].contains("recipe.yaml:2:16\n  = if it is meant"), "{refused:?}");
    }

    #[test]
    fn what_is_allowed_and_does_not_occur_is_told_at_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = recipe(folder.path(), "[{finding: private-key, file: /etc/x, reason: a test key}]");
        let judged = judge(Vec::new(), &recipe);
        let [told] = &judged.told[..] else { panic!("{:?}", judged.told) };
        assert!(told.contains("recipe.yaml:2:19") && told.contains("nothing is found in /etc/x"), "{told}");
        assert!(judged.refused.is_empty());
    }

    #[test]
    fn a_finding_that_there_is_not_is_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        let told = |allow: &str| check_names(&recipe(folder.path(), allow)).unwrap_err().to_string();
        let text = told("[{finding: privat-key, reason: a}, {finding: xyz, reason: b}]");
        assert!(text.contains("did you mean `private-key`?") && text.contains("in brackets"), "{text}");
        assert_eq!(check_names(&recipe(folder.path(), "[{finding: console, reason: a}]")), Ok(()));
    }
}
