//! From the names of a goal to the set of packages that makes it whole.
//!
//! The choices follow apt's: the newest version of each package, the first alternative of a dependency, a real package
//! before one that provides its name. The search itself is `resolvo`'s.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;

use resolvo::conflict::{ConflictCause, ConflictEdge, ConflictGraph, ConflictNode};
use resolvo::{
    Candidates, Condition, ConditionId, ConditionalRequirement, DenseIndex, Dependencies, DependencyProvider,
    HintDependenciesAvailable, Interner, KnownDependencies, NameId, Problem, Requirement, SolvableId, Solver,
    SolverCache, StringId, UnsolvableOrCancelled, VersionSetId, VersionSetUnionId,
};

use crate::control::ControlError;
use crate::relation::{self, Target};
use crate::universe::{MultiArch, Package, PackageId, Priority, Provider, Universe};
use crate::version::{Version, compare, source_version};

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Packages to have, with an exact version where one is asked for. Names may be virtual when one package provides
    /// them.
    pub install: Vec<(String, Option<Version>)>,
    /// Add what packages recommend, where it can be had.
    pub recommends: bool,
    /// Add all packages marked `Essential: yes`, as every root has them.
    pub essential: bool,
    /// Packages to keep at these versions when they are part of the solution. They need not be.
    pub pinned: Vec<(String, Version)>,
}

/// A package of a solution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The package.
    pub package: Package,
    /// Whether it was not asked for by name.
    pub auto: bool,
    /// Whether it is marked `Essential: yes`.
    pub essential: bool,
    /// How much it belongs to every system.
    pub priority: Priority,
}

/// The packages of a goal, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Solution {
    /// Each package once.
    pub packages: Vec<Chosen>,
}

/// Why there is no solution.
#[derive(Debug, thiserror::Error)]
pub enum SolveError {
    /// A package that does not exist.
    #[error("there is no package {name}{}", suggest(near))]
    Unknown {
        /// The name asked for.
        name: String,
        /// Names that look alike.
        near: Vec<String>,
    },
    /// A name that several packages provide.
    #[error("{name} is a virtual package; name the one you want: {}", providers.join(", "))]
    Virtual {
        /// The name asked for.
        name: String,
        /// Who provides it.
        providers: Vec<String>,
    },
    /// A version that does not exist.
    #[error("there is no {name} {version}; the repositories have {}", there.join(", "))]
    NoVersion {
        /// The package.
        name: String,
        /// The version asked for.
        version: String,
        /// The versions that exist, newest first.
        there: Vec<String>,
    },
    /// Pinned packages that the repositories no longer have and that nobody added from a cache.
    #[error(
        "the repositories no longer have {}: what they depend on is not known, so nothing can be added beside them. \
         Renew the lock with --update",
        packages.iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>().join(", ")
    )]
    PinnedGone {
        /// Names and versions.
        packages: Vec<(String, String)>,
    },
    /// The goal contradicts itself.
    #[error("these packages cannot be installed together:\n{}", told(clashes))]
    Conflict {
        /// What excludes what, and how the goal comes to it.
        clashes: Vec<Clash>,
    },
    /// Several names or versions of the request that are not to be had.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<SolveError>),
    /// A package's fields cannot be read.
    #[error(transparent)]
    Syntax(#[from] ControlError),
}

/// Two things that exclude each other, in people's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// `b 1 conflicts with c, which is c 1`, or `e 1 needs f (>= 3), but of f there is 2`.
    pub what: String,
    /// Why the packages that it names are there.
    pub because: Vec<Chain>,
    /// Whether it is about a package that is pinned to its version.
    pub pinned: bool,
}

/// Why a package is part of a solution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The package with its version: `b 1`.
    pub package: String,
    /// The name asked for that leads to it, without a version; `None`: it comes with an essential package.
    pub asked: Option<String>,
    /// Who needs whom, from there on: `a 1 needs b`. Empty when the package is what is asked for.
    pub steps: Vec<String>,
}

impl Chain {
    /// The chain in a line; `place` says behind a name asked for where it is.
    pub fn told(&self, place: impl Fn(&str) -> String) -> String {
        let Self { package, asked, steps } = self;
        match (asked, steps.is_empty()) {
            (Some(asked), true) => format!("{package} is asked for{}", place(asked)),
            (Some(asked), false) => {
                format!("{package} comes with {asked}{}: {}", place(asked), steps.join(", "))
            }
            (None, true) => format!("{package} is essential"),
            (None, false) => format!("{package} comes with an essential package: {}", steps.join(", ")),
        }
    }
}

fn told(clashes: &[Clash]) -> String {
    let lines = clashes.iter().flat_map(|clash| {
        let because = clash.because.iter().map(|chain| format!("    {}", chain.told(|_| String::new())));
        [format!("  {}", clash.what)].into_iter().chain(because)
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn suggest(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) }
}

/// Finds the packages for a request.
pub fn solve(universe: &Universe, request: &Request) -> Result<Solution, SolveError> {
    let goal = Goal::new(universe, request, false)?;
    // Older versions are only thought of when the newest ones do not go together, and the request or the pins are
    // what keeps them apart.
    match run(&goal, request) {
        Err(SolveError::Conflict { clashes }) if goal.wants_versions() => {
            let goal = Goal::new(universe, request, true)?;
            run(&goal, request).map_err(|error| match error {
                SolveError::Conflict { .. } => SolveError::Conflict { clashes },
                other => other,
            })
        }
        other => other,
    }
}

fn run(goal: &Goal<'_>, request: &Request) -> Result<Solution, SolveError> {
    let universe = goal.universe;
    let mut soft: Vec<PackageId> = Vec::new();
    loop {
        let chosen = search(goal, &soft)?;
        if !request.recommends {
            return finish(goal, &chosen);
        }
        let known: BTreeSet<PackageId> = soft.iter().copied().collect();
        let mut more = false;
        for id in chosen.iter().copied() {
            let Some(value) = universe.field(id, &["Recommends"])[0] else { continue };
            for group in relation::parse(value).map_err(|error| universe.broken(id, &error))? {
                let candidates = goal.candidates(&group);
                let there = candidates.iter().any(|candidate| chosen.contains(candidate));
                if let Some(first) = candidates.first().filter(|first| !there && !known.contains(first))
                    && !soft.contains(first)
                {
                    soft.push(*first);
                    more = true;
                }
            }
        }
        if !more {
            return finish(goal, &chosen);
        }
    }
}

fn search(goal: &Goal<'_>, soft: &[PackageId]) -> Result<BTreeSet<PackageId>, SolveError> {
    let problem = Problem::new()
        .requirements(goal.roots.iter().map(|set| goal.requirement(set)).collect())
        .soft_requirements(soft.iter().map(|id| solvable(*id)).collect::<Vec<_>>());
    let mut solver = Solver::new(goal);
    let result = solver.solve(problem);
    if let Some(error) = goal.broken.borrow_mut().take() {
        return Err(error.into());
    }
    match result {
        Ok(chosen) => Ok(chosen.into_iter().map(package_id).collect()),
        Err(UnsolvableOrCancelled::Unsolvable(conflict)) => {
            let graph = conflict.graph(&solver);
            Err(SolveError::Conflict { clashes: goal.explain(&graph) })
        }
        Err(UnsolvableOrCancelled::Cancelled(_)) => Err(SolveError::Conflict { clashes: Vec::new() }),
    }
}

fn finish(goal: &Goal<'_>, chosen: &BTreeSet<PackageId>) -> Result<Solution, SolveError> {
    let universe = goal.universe;
    let asked: BTreeSet<PackageId> = goal.roots.iter().take(goal.asked).flatten_ids();
    let mut packages = Vec::with_capacity(chosen.len());
    for id in chosen {
        let entry = universe.entry(*id);
        packages.push(Chosen {
            package: universe.package(*id)?,
            auto: !asked.contains(id),
            essential: entry.essential,
            priority: entry.priority,
        });
    }
    packages.sort_by(|a, b| a.package.name.cmp(&b.package.name));
    Ok(Solution { packages })
}

trait FlattenIds {
    fn flatten_ids(self) -> BTreeSet<PackageId>;
}

impl<'a, I: Iterator<Item = &'a Need>> FlattenIds for I {
    fn flatten_ids(self) -> BTreeSet<PackageId> {
        self.flat_map(|need| need.candidates.iter().copied()).collect()
    }
}

/// Something that must be there: any of the candidates, the first liked best.
#[derive(Clone, Debug)]
struct Need {
    /// As a person would write it.
    text: String,
    candidates: Vec<PackageId>,
}

/// Some versions of one package.
#[derive(Debug)]
struct VersionSet {
    name: NameId,
    /// For a requirement: the versions that fit. For a conflict: the versions that do not clash.
    fits: Vec<PackageId>,
    /// As a person would write it.
    text: String,
}

/// The request over its universe, as the search sees it.
struct Goal<'u> {
    universe: &'u Universe,
    /// Whether versions other than the newest may be chosen. The candidates of `roots` follow from it.
    old_versions: bool,
    roots: Vec<Need>,
    /// How many of `roots` are asked for by name; the others are essential.
    asked: usize,
    /// Versions asked for or pinned, by name.
    fixed: HashMap<&'u str, PackageId>,
    /// Of these, what is pinned and not asked for.
    pinned: BTreeSet<&'u str>,
    names: RefCell<Interned<'u>>,
    sets: RefCell<Vec<VersionSet>>,
    unions: RefCell<Vec<Vec<VersionSetId>>>,
    /// The first package whose fields could not be read.
    broken: RefCell<Option<ControlError>>,
}

#[derive(Default)]
struct Interned<'u> {
    ids: HashMap<&'u str, NameId>,
    names: Vec<&'u str>,
}

fn solvable(id: PackageId) -> SolvableId {
    SolvableId::from_index(id as usize)
}

fn package_id(solvable: SolvableId) -> PackageId {
    solvable.to_index() as PackageId
}

impl<'u> Goal<'u> {
    fn new(universe: &'u Universe, request: &Request, old_versions: bool) -> Result<Self, SolveError> {
        let mut goal = Self {
            universe,
            old_versions,
            roots: Vec::new(),
            asked: 0,
            fixed: HashMap::new(),
            pinned: BTreeSet::new(),
            names: RefCell::default(),
            sets: RefCell::default(),
            unions: RefCell::default(),
            broken: RefCell::default(),
        };
        let mut gone = Vec::new();
        for (name, version) in &request.pinned {
            let same = |id: &&PackageId| compare(universe.version(**id), version.as_str()).is_eq();
            match universe.versions_of(name).iter().find(same) {
                Some(id) => {
                    goal.fixed.insert(universe.name(*id), *id);
                    goal.pinned.insert(universe.name(*id));
                }
                None => gone.push((name.clone(), version.to_string())),
            }
        }
        if !gone.is_empty() {
            return Err(SolveError::PinnedGone { packages: gone });
        }
        let mut wanted = Vec::new();
        let mut missing = Vec::new();
        for (name, version) in &request.install {
            let found = goal.real_name(name).and_then(|name| {
                let id = version.as_ref().map(|version| goal.wanted_version(name, version)).transpose()?;
                Ok((name, id))
            });
            match found {
                Ok((name, id)) => {
                    if let Some(id) = id {
                        goal.fixed.insert(name, id);
                        goal.pinned.remove(name);
                    }
                    wanted.push((name, version));
                }
                Err(error) => missing.push(error),
            }
        }
        match missing.pop() {
            Some(only) if missing.is_empty() => return Err(only),
            Some(last) => {
                missing.push(last);
                return Err(SolveError::Several(missing));
            }
            None => {}
        }
        for (name, version) in wanted {
            let text =
                version.as_ref().map_or_else(|| name.to_owned(), |version| format!("{name} (= {version})"));
            goal.roots.push(Need { text, candidates: goal.allowed(name) });
        }
        goal.asked = goal.roots.len();
        if request.essential {
            let essential: BTreeSet<&str> = (0..universe.len() as PackageId)
                .filter(|id| universe.entry(*id).essential)
                .map(|id| universe.name(id))
                .filter(|name| {
                    universe.versions_of(name).first().is_some_and(|id| universe.entry(*id).essential)
                })
                .collect();
            for name in essential {
                goal.roots.push(Need { text: name.to_owned(), candidates: goal.allowed(name) });
            }
        }
        Ok(goal)
    }

    /// The package that a name of the request means.
    fn real_name(&self, name: &str) -> Result<&'u str, SolveError> {
        if let Some(id) = self.universe.versions_of(name).first() {
            return Ok(self.universe.name(*id));
        }
        let providers: BTreeSet<&str> =
            self.universe.providers_of(name).iter().map(|provider| self.universe.name(provider.id)).collect();
        let mut names = providers.iter();
        match (names.next(), names.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(SolveError::Unknown {
                name: name.to_owned(),
                near: self.universe.names_like(name, 3).into_iter().map(str::to_owned).collect(),
            }),
            _ => Err(SolveError::Virtual {
                name: name.to_owned(),
                providers: providers.into_iter().map(str::to_owned).collect(),
            }),
        }
    }

    /// The package of a name in the version asked for. A rebuild of it for this architecture alone (`+b1`) is as good,
    /// so that one version can be asked for on several architectures.
    fn wanted_version(&self, name: &str, version: &Version) -> Result<PackageId, SolveError> {
        let there = self.universe.versions_of(name);
        let same = |id: &&PackageId| compare(self.universe.version(**id), version.as_str()).is_eq();
        let rebuilt =
            |id: &&PackageId| compare(source_version(self.universe.version(**id)), version.as_str()).is_eq();
        there.iter().find(same).or_else(|| there.iter().find(rebuilt)).copied().ok_or_else(|| {
            SolveError::NoVersion {
                name: name.to_owned(),
                version: version.to_string(),
                there: there.iter().map(|id| self.universe.version(*id).to_owned()).collect(),
            }
        })
    }

    /// Whether some package must not be at its newest version.
    fn wants_versions(&self) -> bool {
        self.fixed.iter().any(|(name, id)| self.universe.versions_of(name).first() != Some(id))
    }

    /// The versions of a package that may be chosen, newest first.
    fn allowed(&self, name: &str) -> Vec<PackageId> {
        let all = self.universe.versions_of(name);
        match self.fixed.get(name) {
            Some(id) => vec![*id],
            None if self.old_versions => all.to_vec(),
            None => all.first().copied().into_iter().collect(),
        }
    }

    /// Whether a package's architecture answers to the qualifier of a relation.
    fn qualified(&self, id: PackageId, target: &Target<'_>) -> bool {
        match target.qualifier {
            None | Some("native") => true,
            Some("any") => self.universe.entry(id).multi_arch == MultiArch::Allowed,
            Some(other) => other == self.universe.architecture(),
        }
    }

    /// The packages that satisfy one alternative: those of the name, then those that provide it.
    fn matching(&self, target: &Target<'_>) -> Vec<PackageId> {
        let fits = |id: &PackageId| target.accepts(self.universe.version(*id)) && self.qualified(*id, target);
        let mut found: Vec<PackageId> = self.allowed(target.name).into_iter().filter(fits).collect();
        let mut providers: Vec<PackageId> = Vec::new();
        for Provider { id, version } in self.universe.providers_of(target.name) {
            let fits = match (&target.version, version) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some((operator, bound)), Some(version)) => operator.holds(version, bound),
            };
            if fits && self.qualified(*id, target) && self.allowed(self.universe.name(*id)).contains(id) {
                providers.push(*id);
            }
        }
        // As apt: what belongs to every system first, then by name; newest first within a name.
        providers.sort_by(|a, b| {
            let (x, y) = (self.universe.entry(*a), self.universe.entry(*b));
            (y.essential.cmp(&x.essential))
                .then_with(|| x.priority.cmp(&y.priority))
                .then_with(|| self.universe.name(*a).cmp(self.universe.name(*b)))
                .then_with(|| compare(self.universe.version(*b), self.universe.version(*a)))
        });
        for id in providers {
            if !found.contains(&id) {
                found.push(id);
            }
        }
        found
    }

    /// The packages that satisfy a group of alternatives, the first liked best.
    fn candidates(&self, group: &[Target<'_>]) -> Vec<PackageId> {
        let mut all = Vec::new();
        for id in group.iter().flat_map(|target| self.matching(target)) {
            if !all.contains(&id) {
                all.push(id);
            }
        }
        all
    }

    fn name_id(&self, name: &'u str) -> NameId {
        let mut interned = self.names.borrow_mut();
        if let Some(id) = interned.ids.get(name) {
            return *id;
        }
        let id = NameId::from_index(interned.names.len());
        interned.names.push(name);
        interned.ids.insert(name, id);
        id
    }

    fn set(&self, name: &'u str, fits: Vec<PackageId>, text: String) -> VersionSetId {
        let name = self.name_id(name);
        let mut sets = self.sets.borrow_mut();
        sets.push(VersionSet { name, fits, text });
        VersionSetId((sets.len() - 1) as u32)
    }

    fn requirement(&self, need: &Need) -> ConditionalRequirement {
        // Neighbours of the same package share a set, which keeps the order of preference.
        let mut sets: Vec<VersionSetId> = Vec::new();
        let mut rest = need.candidates.as_slice();
        while let Some(first) = rest.first() {
            let name = self.universe.name(*first);
            let same = rest.iter().take_while(|id| self.universe.name(**id) == name).count();
            let (group, tail) = rest.split_at(same);
            sets.push(self.set(name, group.to_vec(), need.text.clone()));
            rest = tail;
        }
        match sets.as_slice() {
            // Nothing fits. The empty name is no package's.
            [] => Requirement::Single(self.set("", Vec::new(), need.text.clone())).into(),
            [one] => Requirement::Single(*one).into(),
            _ => {
                let mut unions = self.unions.borrow_mut();
                unions.push(sets);
                Requirement::Union(VersionSetUnionId((unions.len() - 1) as u32)).into()
            }
        }
    }

    fn dependencies(&self, id: PackageId) -> Result<KnownDependencies, ControlError> {
        let universe = self.universe;
        let fields = universe.field(id, &["Pre-Depends", "Depends", "Conflicts", "Breaks"]);
        let parse = |value| relation::parse(value).map_err(|error| universe.broken(id, &error));
        let mut known = KnownDependencies::default();
        for value in fields[..2].iter().flatten() {
            for group in parse(value)? {
                let text = group.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
                let need = Need { text, candidates: self.candidates(&group) };
                known.requirements.push(self.requirement(&need));
            }
        }
        for (word, value) in [("conflicts with", fields[2]), ("breaks", fields[3])] {
            let Some(value) = value else { continue };
            for target in parse(value)?.into_iter().flatten() {
                let own = universe.name(id);
                let mut clashes: BTreeMap<&str, Vec<PackageId>> = BTreeMap::new();
                for other in self.matching(&target) {
                    let name = universe.name(other);
                    if name != own {
                        clashes.entry(name).or_default().push(other);
                    }
                }
                for (name, clashes) in clashes {
                    let fits =
                        self.allowed(name).into_iter().filter(|other| !clashes.contains(other)).collect();
                    known.constrains.push(self.set(name, fits, format!("{word} {target}")));
                }
            }
        }
        Ok(known)
    }

    /// A conflict in people's words: what excludes what, in the order in which the goal comes to it, each once.
    fn explain(&self, graph: &ConflictGraph) -> Vec<Clash> {
        let nodes = self.nodes(graph);
        let ways = ways(&nodes, graph.root_node.index());
        let chain = |node: usize| {
            let (_, steps) = ways.iter().find(|(other, _)| *other == node)?;
            self.chain(&nodes[node].name, steps)
        };
        let mut clashes: Vec<Clash> = Vec::new();
        for (node, _) in &ways {
            let who = &nodes[*node].name;
            for (next, link) in &nodes[*node].links {
                let other = &nodes[*next].name;
                let what = match link {
                    Link::Needs(_) => continue,
                    Link::NeedsWhatIsNot(wanted) => {
                        format!("{who} needs {wanted}, but {}", self.available(wanted))
                    }
                    Link::Forbids(what) => format!("{who} {what}, which is {other}"),
                    Link::IsAnotherVersionOf => {
                        format!("{} and {} cannot both be there", who.min(other), who.max(other))
                    }
                };
                if clashes.iter().all(|clash| clash.what != what) {
                    let because = [*node, *next].into_iter().filter_map(chain).collect();
                    let pinned = what.split([' ', ',']).any(|word| self.pinned.contains(word));
                    clashes.push(Clash { what, because, pinned });
                }
            }
        }
        clashes
    }

    /// The packages that a conflict is about, by their number in its graph.
    fn nodes(&self, graph: &ConflictGraph) -> Vec<Node> {
        let name = |node: &ConflictNode| match node {
            ConflictNode::Solvable(id) => self.shown(package_id(*id)),
            ConflictNode::Root | ConflictNode::UnresolvedDependency | ConflictNode::Excluded(_) => {
                String::new()
            }
        };
        let mut nodes: Vec<Node> =
            graph.graph.node_weights().map(|node| Node { name: name(node), links: Vec::new() }).collect();
        for from in graph.graph.node_indices() {
            let mut links: Vec<(usize, Link)> = Vec::new();
            for to in graph.graph.neighbors(from) {
                links.extend(graph.graph.edges_connecting(from, to).filter_map(|edge| {
                    let link = match *edge.weight() {
                        ConflictEdge::Requires(wanted) if graph.unresolved_node == Some(to) => {
                            Link::NeedsWhatIsNot(self.requirement_text(wanted))
                        }
                        ConflictEdge::Requires(wanted) => Link::Needs(self.requirement_text(wanted)),
                        ConflictEdge::Conflict(ConflictCause::Constrains(set)) => {
                            Link::Forbids(self.set_text(set))
                        }
                        ConflictEdge::Conflict(ConflictCause::ForbidMultipleInstances) => {
                            Link::IsAnotherVersionOf
                        }
                        ConflictEdge::Conflict(_) => return None,
                    };
                    Some((to.index(), link))
                }));
            }
            links.sort_by(|a, b| (&nodes[a.0].name, a).cmp(&(&nodes[b.0].name, b)));
            links.dedup();
            nodes[from.index()].links = links;
        }
        nodes
    }

    /// Why a package is there, by the needs that lead to it; `None` for the goal itself.
    fn chain(&self, package: &str, steps: &[(String, String)]) -> Option<Chain> {
        let ((_, first), rest) = steps.split_first()?;
        let asked = self.roots.iter().take(self.asked).any(|need| need.text == *first);
        Some(Chain {
            package: package.to_owned(),
            asked: asked.then(|| first.split(' ').next().unwrap_or_default().to_owned()),
            steps: rest.iter().map(|(who, wanted)| format!("{who} needs {wanted}")).collect(),
        })
    }

    fn set_text(&self, set: VersionSetId) -> String {
        self.sets.borrow().get(set.to_index()).map(|set| set.text.clone()).unwrap_or_default()
    }

    fn requirement_text(&self, requirement: Requirement) -> String {
        let first = match requirement {
            Requirement::Single(set) => Some(set),
            Requirement::Union(union) => {
                self.unions.borrow().get(union.to_index()).and_then(|sets| sets.first().copied())
            }
        };
        first.map(|set| self.set_text(set)).unwrap_or_default()
    }

    fn shown(&self, id: PackageId) -> String {
        format!("{} {}", self.universe.name(id), self.universe.version(id))
    }

    /// What there is of the packages that a relation names.
    fn available(&self, wanted: &str) -> String {
        let Ok(groups) = relation::parse(wanted) else { return "there is none".into() };
        let all = groups.into_iter().flatten().map(|target| {
            let allowed = self.allowed(target.name);
            if !allowed.is_empty() {
                let versions: Vec<&str> = allowed.iter().map(|id| self.universe.version(*id)).collect();
                let kept = match self.fixed.contains_key(target.name) {
                    true if self.pinned.contains(target.name) => " (pinned)",
                    true => " (asked for)",
                    false => "",
                };
                return format!("of {} there is {}{kept}", target.name, versions.join(", "));
            }
            match self.universe.names_like(target.name, 1).first() {
                Some(near) if *near == target.name => {
                    format!("of {} there is no version that fits", target.name)
                }
                _ => format!("there is no package {}", target.name),
            }
        });
        all.collect::<Vec<_>>().join(", ")
    }
}

/// A package in a conflict, and what it has to do with others.
struct Node {
    /// Name and version; empty for the goal itself.
    name: String,
    links: Vec<(usize, Link)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Link {
    /// This, which the other is.
    Needs(String),
    /// This, which nothing is.
    NeedsWhatIsNot(String),
    /// In the words of its field: `conflicts with b`.
    Forbids(String),
    IsAnotherVersionOf,
}

/// The nodes that needs lead to from `root`, each with the shortest way: who needs, and what.
fn ways(nodes: &[Node], root: usize) -> Vec<(usize, Vec<(String, String)>)> {
    let mut ways = vec![(root, Vec::new())];
    let mut at = 0;
    while let Some((node, steps)) = ways.get(at).cloned() {
        at += 1;
        for (next, link) in &nodes[node].links {
            if let Link::Needs(wanted) = link
                && ways.iter().all(|(other, _)| other != next)
            {
                let step = (nodes[node].name.clone(), wanted.clone());
                ways.push((*next, steps.iter().cloned().chain([step]).collect()));
            }
        }
    }
    ways
}

impl Interner for &Goal<'_> {
    type NameId = NameId;
    type SolvableId = SolvableId;

    fn display_solvable(&self, solvable: SolvableId) -> impl Display + '_ {
        self.shown(package_id(solvable))
    }

    fn display_name(&self, name: NameId) -> impl Display + '_ {
        self.names.borrow().names[name.to_index()].to_owned()
    }

    fn display_version_set(&self, version_set: VersionSetId) -> impl Display + '_ {
        self.sets.borrow()[version_set.to_index()].text.clone()
    }

    fn display_string(&self, _: StringId) -> impl Display + '_ {
        ""
    }

    fn version_set_name(&self, version_set: VersionSetId) -> NameId {
        self.sets.borrow()[version_set.to_index()].name
    }

    fn solvable_name(&self, solvable: SolvableId) -> NameId {
        self.name_id(self.universe.name(package_id(solvable)))
    }

    fn version_sets_in_union(&self, union: VersionSetUnionId) -> impl Iterator<Item = VersionSetId> {
        self.unions.borrow()[union.to_index()].clone().into_iter()
    }

    fn resolve_condition(&self, _: ConditionId) -> Condition {
        unreachable!("no requirement of a Debian package has a condition")
    }
}

impl DependencyProvider for &Goal<'_> {
    async fn filter_candidates(
        &self,
        candidates: &[SolvableId],
        version_set: VersionSetId,
        inverse: bool,
    ) -> Vec<SolvableId> {
        let sets = self.sets.borrow();
        let fits = &sets[version_set.to_index()].fits;
        candidates.iter().copied().filter(|id| fits.contains(&package_id(*id)) != inverse).collect()
    }

    async fn get_candidates(&self, name: NameId) -> Option<Candidates> {
        let name = self.names.borrow().names[name.to_index()];
        let candidates = self.allowed(name).into_iter().map(solvable).collect();
        let hint = HintDependenciesAvailable::All;
        Some(Candidates { candidates, hint_dependencies_available: hint, ..Candidates::default() })
    }

    async fn sort_candidates(&self, _: &SolverCache<Self>, solvables: &mut [SolvableId]) {
        // Candidates are of one package here: the newest first, of equal ones the one read first.
        solvables.sort_by(|a, b| {
            let (a, b) = (package_id(*a), package_id(*b));
            compare(self.universe.version(b), self.universe.version(a)).then_with(|| a.cmp(&b))
        });
    }

    async fn get_dependencies(&self, solvable: SolvableId) -> Dependencies {
        match self.dependencies(package_id(solvable)) {
            Ok(known) => Dependencies::Known(known),
            Err(error) => {
                self.broken.borrow_mut().get_or_insert(error);
                Dependencies::Unknown(StringId(0))
            }
        }
    }
}
