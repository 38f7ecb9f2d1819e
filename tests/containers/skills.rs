//! What an agent has learnt for good, and what all have: skills.

use std::fs;
use std::path::Path;

use nanokimi::agent::Engine;
use support::container_world::World;
use support::fixture::gone;

/// Where the engines find the copies.
const COPIES: &str = "/home/node/.nanokimi/skills";

fn write_skill(folder: &Path, description: &str) {
    fs::create_dir_all(folder).unwrap();
    let text = format!("---\nname: bread\ndescription: {description}\n---\n\nKnead it for ten minutes.\n");
    fs::write(folder.join("SKILL.md"), text).unwrap();
}

#[tokio::test]
async fn skills_of_a_chat_and_of_all_are_offered_and_the_chats_own_counts() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        let (own, global) = (world.folder_of("family"), world.paths().global_folder());
        write_skill(&own.join("skills/bread"), "Bread as Ana bakes it.");
        fs::write(own.join("skills/bread/oven.sh"), "echo hot").unwrap();
        write_skill(&global.join("skills/bread"), "Bread as others bake it.");
        let boat = "---\nname: boat\ndescription: Sails the boat.\n---\n";
        fs::create_dir(global.join("skills/boat")).unwrap();
        fs::write(global.join("skills/boat/SKILL.md"), boat).unwrap();
        // The engine has found it by itself before there were any others.
        fs::create_dir_all(own.join(".agents/skills/tides")).unwrap();
        fs::write(own.join(".agents/skills/tides/SKILL.md"), boat.replace("boat", "tides")).unwrap();

        assert_eq!(world.asks("family", "@Kai SAY ahoy").await, "Kai: ahoy");
        let prompt = world.system_prompt();
        for told in ["Bread as Ana bakes it.", "Sails the boat.", "Sails the tides."] {
            assert!(prompt.contains(told), "{told}: {prompt}");
        }
        assert!(!prompt.contains("as others bake it"), "{prompt}");
        assert!(prompt.contains(&format!("{COPIES}/group/bread/SKILL.md")), "{prompt}");
        assert!(!prompt.contains("left out"), "{prompt}");

        let read = match engine {
            Engine::KimiCli => format!(r#"CALL ReadFile {{"path":"{COPIES}/group/bread/SKILL.md"}}"#),
            Engine::KimiCode => r#"CALL Skill {"skill":"bread"}"#.to_owned(),
        };
        let read = world.asks("family", &format!("@Kai {read}")).await;
        assert!(read.contains("Knead it for ten minutes."), "{read}");
        let script = format!("sh {COPIES}/group/bread/oven.sh");
        assert_eq!(world.agent_runs("family", &script).await, "hot\n");

        // The other chat has only what is everybody's.
        assert_eq!(world.asks("main", "SAY aye").await, "Kai: aye");
        let prompt = world.system_prompt();
        assert!(prompt.contains("as others bake it") && !prompt.contains("as Ana bakes it"), "{prompt}");
        world.ends().await;
    }
}

#[tokio::test]
async fn a_skill_that_an_agent_writes_counts_from_the_next_message_on() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        let write = |folder: &str, description: &str| {
            format!(
                "mkdir -p {folder}/skills/bread; \
                 printf -- '---\\ndescription: {description}\\n---\\n' >{folder}/skills/bread/SKILL.md"
            )
        };
        world.agent_runs("main", &write("/workspace/global", "Bread for all.")).await;
        for group in ["family", "main"] {
            world.asks(group, "@Kai SAY one").await;
            assert!(world.system_prompt().contains("Bread for all."), "{group}: {}", world.system_prompt());
        }
        world.agent_runs("family", &write("/workspace/group", "Our bread.")).await;
        world.agent_runs("family", &write("/workspace/global", "Bread for nobody.")).await;
        world.asks("family", "@Kai SAY two").await;
        let prompt = world.system_prompt();
        assert!(prompt.contains("Our bread.") && !prompt.contains("Bread for"), "{prompt}");
        world.ends().await;
    }
}

/// Whatever lies there, the first engine that is started answers, in that chat and in all others.
#[tokio::test]
async fn no_skill_keeps_an_engine_from_starting() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        let good = "---\\ndescription: Bakes bread.\\n---\\n";
        let bomb = "---\\na: &a [x,x]\\nb: &b [*a,*a,*a]\\nname: *b\\ndescription: *b\\n---\\n";
        for (group, folder) in [("family", "/workspace/group"), ("main", "/workspace/global")] {
            let spoil = format!(
                r"mkdir {folder}/skills; cd {folder}/skills;
                mkdir bread utf pipe loop huge bare bomb closed;
                printf -- '{good}' >bread/SKILL.md;
                printf '\377' >utf/SKILL.md; mkfifo pipe/SKILL.md; ln -s SKILL.md loop/SKILL.md; ln -s around around;
                truncate -s 1073741824 huge/SKILL.md; echo text >bare/SKILL.md; printf -- '{bomb}' >bomb/SKILL.md;
                printf -- '{good}' >closed/SKILL.md; chmod 000 closed;
                mkdir $(seq -f zz%g 3000); for n in $(seq 3000); do printf '\377' >zz$n/SKILL.md; done; ls | wc -l"
            );
            let spoil = spoil.replace('\n', " ");
            assert_eq!(world.agent_runs(group, &spoil).await, "3009\n");
        }
        for group in ["family", "main"] {
            assert_eq!(world.asks(group, "@Kai SAY hello").await, "Kai: hello");
            let prompt = world.system_prompt();
            assert!(prompt.contains("Bakes bread."), "{prompt}");
            assert!(prompt.contains("Skills that are left out") && prompt.contains("bare"), "{prompt}");
        }
        let set_aside = world.paths().set_aside_folder(&support::test_service::name("family"));
        assert!(!set_aside.exists(), "nothing was put away");
        world.ends().await;
    }
}

/// A file in the place of all skills.
#[tokio::test]
async fn a_file_named_skills_costs_nothing() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        world.agent_runs("family", "echo none >/workspace/group/skills").await;
        gone(&world.kill_container("family").await).await;
        assert_eq!(world.asks("family", "@Kai SAY hello").await, "Kai: hello");
        world.ends().await;
    }
}
