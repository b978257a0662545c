//! `init`, and the tutorial that begins with it.

use std::fs;

use crate::{run, text, workspace};

#[test]
fn a_new_recipe_validates_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".git")).unwrap();
    let output = run(folder.path(), &["init", "shop"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(said.contains("bakehouse bake shop/shop.yaml"), "{said}");
    let schema = fs::read(folder.path().join("shop/recipe.schema.json")).unwrap();
    assert!(schema == fs::read(workspace("recipes/recipe.schema.json")).unwrap());
    let recipe = folder.path().join("shop/shop.yaml");
    let text_of_recipe = fs::read_to_string(&recipe).unwrap();
    assert!(text_of_recipe.starts_with("# yaml-language-server: $schema=recipe.schema.json\n"));
    assert!(text_of_recipe.contains("\nname: shop\n") && !text_of_recipe.contains("my-image"));
    let valid = run(folder.path(), &["validate", "shop/shop.yaml"]);
    assert!(valid.status.success(), "{}", text(&valid.stderr));

    fs::write(&recipe, "name: mine\n").unwrap();
    let again = run(folder.path(), &["init", "shop/shop.yaml"]);
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(
        text(&again.stderr),
        "error: shop/shop.yaml: is there already and stays as it is: name another file or folder\n"
    );
    assert_eq!(fs::read_to_string(&recipe).unwrap(), "name: mine\n");

    // A second recipe shares the schema; a workflow goes to the top of the repository.
    let second = run(folder.path(), &["init", "shop/till.yaml", "--ci"]);
    assert!(second.status.success(), "{}", text(&second.stderr));
    let workflow = fs::read_to_string(folder.path().join(".github/workflows/bake.yml")).unwrap();
    assert!(workflow.contains("run: bakehouse validate shop/till.yaml\n"), "{workflow}");
    assert!(workflow.contains("hashFiles('shop/till.lock')"), "{workflow}");
    assert!(workflow.contains("name: till-${{ matrix.arch }}\n"), "{workflow}");
    let third = run(folder.path(), &["init", "shop/shop.yaml", "--ci"]);
    assert_eq!(third.status.code(), Some(2));
    assert!(text(&third.stderr).contains(".github/workflows/bake.yml: is there already"));
}

#[test]
fn the_steps_of_the_workflow_are_scripts_that_a_shell_reads() {
    let workflow = fs::read_to_string(workspace("docs/ci/bake.yml")).unwrap();
    assert!(!workflow.contains('\t'));
    let mut scripts = Vec::new();
    let mut lines = workflow.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(rest) = line.trim_start().strip_prefix("run:") else { continue };
        let indent = line.len() - line.trim_start().len();
        let mut script = rest.trim().trim_start_matches('|').to_owned();
        while let Some(next) =
            lines.next_if(|next| next.len() - next.trim_start().len() > indent || next.is_empty())
        {
            script += &format!("\n{next}");
        }
        scripts.push(script.replace("${{ matrix.arch }}", "x86_64"));
    }
    assert_eq!(scripts.len(), 5, "{scripts:#?}");
    for script in scripts {
        let status = std::process::Command::new("bash").args(["-n", "-c", &script]).status().unwrap();
        assert!(status.success(), "{script}");
    }
}

/// Every recipe that the tutorial shows whole validates, with the files that it shows.
#[test]
fn the_tutorials_recipe_validates() {
    let tutorial = fs::read_to_string(workspace("docs/tutorial.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut recipes = 0;
    for block in tutorial.split("\n```yaml\n").skip(1) {
        let (recipe, _) = block.split_once("\n```").unwrap();
        if !recipe.contains("\nname: ") {
            continue;
        }
        recipes += 1;
        fs::create_dir_all(folder.path().join("site")).unwrap();
        fs::write(folder.path().join("site/index.html"), "<h1>Hello</h1>\n").unwrap();
        fs::write(folder.path().join("recipe.yaml"), recipe).unwrap();
        let output = run(folder.path(), &["validate", "recipe.yaml"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "recipe.yaml: no mistakes\n");
    }
    assert!(recipes > 0);
}
