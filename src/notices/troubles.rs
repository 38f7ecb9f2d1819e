//! What is said of each trouble: what happened, and what helps. In English and in Spanish.

use crate::types::Trouble;

/// What happened.
pub fn describe_in_each_language(trouble: Trouble) -> (&'static str, &'static str) {
    match trouble {
        Trouble::NoDocker => (
            "Docker, the program that I run in on the server, does not respond.",
            "Docker, el programa en el que funciono en el servidor, no responde.",
        ),
        Trouble::NoImage => {
            ("I am not completely installed on the server.", "No estoy instalado del todo en el servidor.")
        }
        Trouble::NoSpace => ("The server's disk is full.", "El disco del servidor está lleno."),
        Trouble::DiskShare => (
            "My files in this chat take more of the server's disk than one chat may.",
            "Mis archivos de este chat ocupan más disco del servidor del que puede ocupar un chat.",
        ),
        Trouble::SystemLimit => (
            "The server has run out of something that all its programs share.",
            "Al servidor se le ha agotado algo que comparten todos sus programas.",
        ),
        Trouble::LaunchFailed => {
            ("I could not be started on the server.", "No se me ha podido arrancar en el servidor.")
        }
        Trouble::NeverReady => (
            "I was started on the server, but never got ready.",
            "Se me ha arrancado en el servidor, pero no he llegado a estar listo.",
        ),
        Trouble::EngineDied => {
            ("I broke down in the middle of the work.", "Me he averiado a mitad del trabajo.")
        }
        Trouble::EngineGarbage => (
            "The program that thinks for me said something that I do not understand.",
            "El programa que piensa por mí ha dicho algo que no entiendo.",
        ),
        Trouble::TurnTooLong => (
            "It took longer than I may work on one message.",
            "Ha llevado más tiempo del que puedo dedicar a un mensaje.",
        ),
        Trouble::NoModel => {
            ("Nobody has told me which Kimi model to use.", "Nadie me ha dicho qué modelo de Kimi debo usar.")
        }
        Trouble::Unsupported => (
            "There is something in the message that I cannot read, such as a picture.",
            "En el mensaje hay algo que no puedo leer, como una imagen.",
        ),
        Trouble::NotLoggedIn => (
            "I am not logged in to Kimi, or the login has expired.",
            "No tengo iniciada la sesión en Kimi, o ha caducado.",
        ),
        Trouble::ClientRefused => (
            "Kimi does not serve the program that I think with, or not in this version any more.",
            "Kimi no atiende al programa con el que pienso, o ya no en esta versión.",
        ),
        Trouble::AccountEnded => (
            "Kimi has ended the access of the account that I use.",
            "Kimi ha cancelado el acceso de la cuenta que uso.",
        ),
        Trouble::NoMembership => (
            "Kimi finds no active membership for the account that I use.",
            "Kimi no encuentra ninguna suscripción activa de la cuenta que uso.",
        ),
        Trouble::Refused => (
            "Kimi refuses to answer me, and does not say why.",
            "Kimi se niega a responderme y no dice por qué.",
        ),
        Trouble::RateLimited => (
            "I have asked Kimi as much as it allows for now.",
            "Le he preguntado a Kimi todo lo que permite por ahora.",
        ),
        Trouble::QuotaUsedUp => (
            "What the Kimi plan holds is used up for now.",
            "Lo que incluye el plan de Kimi se ha agotado por ahora.",
        ),
        Trouble::ModelRefused => (
            "Kimi does not give me the model that I am set to use.",
            "Kimi no me da el modelo que tengo configurado.",
        ),
        Trouble::TooLarge => (
            "What I would have to show Kimi at once is too large for it.",
            "Lo que tendría que enseñarle a Kimi de una vez es demasiado grande.",
        ),
        Trouble::Overloaded => (
            "Kimi is overloaded or out of order at the moment.",
            "Kimi está saturado o averiado en este momento.",
        ),
        Trouble::BadRequest => {
            ("Kimi did not accept what I asked it.", "Kimi no ha aceptado lo que le he pedido.")
        }
        Trouble::Unreachable => {
            ("I cannot reach Kimi over the internet.", "No consigo llegar a Kimi por internet.")
        }
        Trouble::EmptyAnswer => ("Kimi gave me an empty answer.", "Kimi me ha dado una respuesta vacía."),
        Trouble::Internal => ("Something went wrong inside me.", "Algo ha fallado dentro de mí."),
    }
}

/// What the people in the chat can do.
pub fn remedy_in_each_language(trouble: Trouble) -> (&'static str, &'static str) {
    match trouble {
        Trouble::NoDocker
        | Trouble::LaunchFailed
        | Trouble::NeverReady
        | Trouble::NoModel
        | Trouble::SystemLimit
        | Trouble::Internal => (
            "Please ask the owner to run `nanokimi doctor`, which says what to repair.",
            "Pide al propietario que ejecute `nanokimi doctor`, que dice qué hay que arreglar.",
        ),
        Trouble::NoImage => (
            "Please ask the owner to run `nanokimi build`.",
            "Pide al propietario que ejecute `nanokimi build`.",
        ),
        Trouble::NoSpace => (
            "Please ask the owner to free some space and to run `nanokimi doctor`.",
            "Pide al propietario que libere espacio y ejecute `nanokimi doctor`.",
        ),
        Trouble::DiskShare => (
            "Please ask me to delete what is not needed any more.",
            "Pídeme que borre lo que ya no haga falta.",
        ),
        Trouble::EngineDied => (
            "If it happens again, please ask the owner to run `nanokimi doctor`.",
            "Si vuelve a pasar, pide al propietario que ejecute `nanokimi doctor`.",
        ),
        Trouble::EngineGarbage => (
            "Please ask the owner to run `nanokimi build`, which installs the right one.",
            "Pide al propietario que ejecute `nanokimi build`, que instala el correcto.",
        ),
        Trouble::TurnTooLong => ("Please ask me for less at once.", "Pídeme menos cosas a la vez."),
        Trouble::Unsupported => {
            ("Please tell me in words what it shows.", "Cuéntame con palabras qué contiene.")
        }
        Trouble::NotLoggedIn => (
            "Please ask the owner to run `nanokimi doctor`.",
            "Pide al propietario que ejecute `nanokimi doctor`.",
        ),
        Trouble::ClientRefused => (
            "Please ask the owner to install the newest nanokimi.",
            "Pide al propietario que instale la última versión de nanokimi.",
        ),
        Trouble::AccountEnded => {
            ("Please ask the owner to talk to Kimi.", "Pide al propietario que hable con Kimi.")
        }
        Trouble::NoMembership => (
            "Please ask the owner to check the Kimi membership.",
            "Pide al propietario que compruebe la suscripción de Kimi.",
        ),
        Trouble::Refused => (
            "Please ask the owner to check the Kimi account, and then to run `nanokimi doctor`.",
            "Pide al propietario que revise la cuenta de Kimi y luego ejecute `nanokimi doctor`.",
        ),
        Trouble::RateLimited => (
            "Please wait a while; if it lasts, ask the owner to check the Kimi plan and to run `nanokimi status`.",
            "Espera un rato; si dura, pide al propietario que revise el plan de Kimi y ejecute `nanokimi status`.",
        ),
        Trouble::QuotaUsedUp => (
            "Please wait until the plan's next period; the owner sees at Kimi when that is.",
            "Espera al siguiente periodo del plan; el propietario ve en Kimi cuándo empieza.",
        ),
        Trouble::ModelRefused => (
            "Please ask the owner to run `nanokimi doctor`, and to check the model in .env and in config.toml.",
            "Pide al propietario que ejecute `nanokimi doctor` y revise el modelo en .env y en config.toml.",
        ),
        Trouble::TooLarge => (
            "Please send fewer or smaller pictures at once.",
            "Envía menos imágenes a la vez, o más pequeñas.",
        ),
        Trouble::Overloaded => ("Please wait a few minutes.", "Espera unos minutos."),
        Trouble::BadRequest | Trouble::EmptyAnswer => (
            "Please put it in other words; if it happens again, ask the owner to run `nanokimi doctor`.",
            "Dilo con otras palabras; si vuelve a pasar, pide al propietario que ejecute `nanokimi doctor`.",
        ),
        Trouble::Unreachable => (
            "Please ask the owner to check the server's connection with `nanokimi doctor`.",
            "Pide al propietario que compruebe la conexión del servidor con `nanokimi doctor`.",
        ),
    }
}
