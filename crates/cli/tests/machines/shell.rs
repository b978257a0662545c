//! `bakehouse shell`: the root as a script left it.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Output;

use crate::house::{House, text};

fn shell(house: &House, recipe: &Path, options: &[&str], script: &str) -> Output {
    let mut arguments: Vec<&OsStr> = vec!["shell".as_ref(), recipe.as_os_str()];
    arguments.extend(options.iter().map(OsStr::new));
    arguments.extend(["--", "sh", "-c", script].map(OsStr::new));
    house.bakehouse(&arguments).output().unwrap()
}

pub(crate) fn failing_step(house: &House) {
    let folder = house.folder("shell");
    let recipe = folder.join("broken.yaml");
    let text_of_recipe = "name: broken\narchitectures: [x86_64]\nfiles: [{path: /etc/mark, content: laid}]\nrun:\n\
                          - {name: first, script: echo 1 >/var/first}\n\
                          - {name: second, script: \"echo 2 >/var/second\\necho no such thing\\nfalse\"}\n\
                          - {name: third, script: echo 3 >/var/third}\n";
    fs::write(&recipe, text_of_recipe).unwrap();
    let looks = "cat /etc/mark /var/first /var/second; ls /var/third 2>&1; tail -n 1 /run/bakehouse-step; \
                 echo mine >/etc/mark; dpkg --audit; exit 5";
    let output = shell(house, &recipe, &[], looks);
    let (found, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert_eq!(found, "laid1\n2\nls: cannot access '/var/third': No such file or directory\nfalse", "{said}");
    for part in ["run step `second` failed: exit code 1", "no such thing", "as it was when that failed"] {
        assert!(said.contains(part), "no `{part}` in:\n{said}");
    }
    // What was changed is gone, and the steps can be left out.
    let output = shell(house, &recipe, &["--before-run"], "cat /etc/mark; ls /var/first /run/bakehouse-step");
    let (found, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), found.as_str()), (Some(2), "laid"), "{said}");
    assert!(said.contains("before its `run` scripts"), "{said}");
}
