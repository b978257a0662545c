/// The candidate that a person most likely meant, if one is close enough.
/// Letter case counts nothing; swapped neighbours count as one change.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    if length > 64 {
        return None;
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.chars().count() <= 64)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (length.max(candidate.chars().count()) / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

/// "did you mean …?", if something is near; else a list of what there is.
pub(crate) fn advice(word: &str, candidates: &[&str], what: &str) -> Option<String> {
    if let Some(near) = nearest(word, candidates.iter().copied()) {
        return Some(format!("did you mean `{near}`?"));
    }
    (!candidates.is_empty()).then(|| format!("{what}: {}", candidates.join(", ")))
}

/// Edit distance in characters: insertions, removals, replacements and swaps of neighbours count one each. Letter
/// case counts nothing.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_far_away() {
        let keys = ["packages", "motd", "web", "files", "volumes"];
        assert_eq!(nearest("pakages", keys), Some("packages"));
        assert_eq!(nearest("mtod", keys), Some("motd"));
        assert_eq!(nearest("Files", keys), Some("files"));
        assert_eq!(nearest("network", keys), None);
    }
}
