"""The task types there are, and the words and marks that signals count. Data, no code."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

TASK_TYPES = (
    "code",
    "math",
    "creative",
    "analysis",
    "extraction",
    "qa",
    "translation",
    "summarization",
    "embedding",
    "chat",
)
TASK_INDEX: Mapping[str, int] = MappingProxyType({name: i for i, name in enumerate(TASK_TYPES)})

# Words that tell of a task type wherever they stand.
CONTENT: Mapping[str, str] = MappingProxyType(
    {
        "code": """python javascript typescript java rust golang kotlin php sql regex function code
            script program algorithm bug debug refactor compile compiler api json html css class
            method array string tuple boolean dictionary recursive implement unittest pytest docker
            kubernetes git github linux bash async await def elif const printf println struct enum
            lambda nullptr int str bool void func fn impl namespace import stacktrace traceback
            exception codebase repository endpoint dataframe pandas numpy react node sqlite
            postgres linked select""",
        "math": """solve equation equations integer integers polynomial triangle probability theorem
            lemma prove proof calculate compute derivative integral matrix vector algebra geometry
            arithmetic fraction percent percentage quotient remainder divisible modulo prime sqrt
            factorial logarithm cosine sine tangent hexagon radius perimeter circumference frac
            hypotenuse boxed cdot quadratic inequality median sum total twice half times per each
            dozen puzzle clue clues logic logical deduce premise premises""",
        "creative": """story poem poetry haiku sonnet song lyrics novel fiction fictional
            email letter speech plot dialogue screenplay slogan tagline imagine brainstorm essay
            blog joke limerick metaphor rhyme narrator fantasy satire humorous creative""",
        "analysis": """analyze analyse analysis compare comparison contrast evaluate assess
            assessment tradeoffs tradeoff pros cons implications research investigate report
            critique strategy hypothesis evidence methodology literature argument framework
            advantages disadvantages mechanism synthesis consequences trends market policy
            economic""",
        "extraction": """classify classification classifier categorize categorise category
            categories label labels sentiment positive negative neutral extract extraction
            entities entity schema fields spam intent annotate tag tags identify""",
        "qa": """capital president invented discovered author actor founded born died country city
            film movie album planet species wrote painted""",
        "translation": """translate translation translator translated übersetze übersetzen
            übersetzung traduire traduis traduisez traduction traduce traducir traducción
            traduzca traduci tradurre traduzir traduza tradução vertaal переведи перевести
            перевод""",
        "summarization": """summarize summarise summary summaries summarization tldr tl condense
            abridge recap digest outline shorten zusammenfassen zusammenfassung résume résumer
            résumé resume resumir resumen riassumi riassunto resumo samenvatten кратко резюме""",
        "embedding": "",
        "chat": """hi hello hey thanks thank bye morning evening you feel feeling friend chat lol
            sorry yeah okay doing""",
    }
)

# Words that tell of a task type where instructions stand: at the beginning or the end.
INSTRUCTION: Mapping[str, str] = MappingProxyType(
    {
        "code": "function code script program python sql regex debug refactor implement unittest",
        "math": "solve calculate compute prove simplify evaluate find determine integrate",
        "creative": """story poem haiku song lyrics essay slogan brainstorm imagine compose rewrite
            blog""",
        "analysis": "analyze analyse compare evaluate assess discuss critique explain research",
        "extraction": "classify categorize categorise label extract identify detect sentiment",
        "qa": "",
        "translation": """translate translation translator übersetze traduis traduce traduci
            переведи""",
        "summarization": """summarize summarise summary tldr tl condense zusammenfassen résume
            resume""",
        "embedding": "",
        "chat": "hi hello hey thanks",
    }
)

# The same in scripts that put no spaces between words.
UNSPACED: Mapping[str, str] = MappingProxyType(
    {
        "code": "代码 函数 编程 コード 関数",
        "math": "计算 方程 求解 計算 方程式",
        "creative": "故事 诗 物語 小説",
        "analysis": "分析 比较 比較 评估",
        "extraction": "分类 提取 分類 抽出",
        "translation": "翻译 翻譯 翻訳 訳して 번역",
        "summarization": "总结 摘要 概括 要約 요약",
    }
)

LANGUAGE_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "en": """a the of and to in is that it for was with as on are be this at by from have an or
            what which how who many if can not does do you your would there their has had
            were i me my we about please give""",
        "de": """der die das und ist nicht ein eine einen mit für auf dem den von zu wie wir ich sie
            auch sich des im werden bei""",
        "fr": """le la les des et est un une dans que qui pour pas sur avec vous nous ce cette du au
            je il elle sont plus""",
        "es": """el la los las de y es un una en que por para con no se su lo como más qué cómo al
            del""",
        "it": """il lo la gli di e è un una che per non con sono del della come più questo nel alla
            si""",
        "pt": """o a os as de e é um uma em que para com não se por do da no na como mais dos""",
        "nl": """de het een en van is niet dat op te met voor zijn ik je wat hoe aan er maar ook""",
    }
)

SCRIPTS = (  # first and last code point of a block, and the language it speaks for
    (0x0370, 0x03FF, "el"),
    (0x0400, 0x04FF, "ru"),
    (0x0590, 0x05FF, "he"),
    (0x0600, 0x06FF, "ar"),
    (0x0900, 0x097F, "hi"),
    (0x0E00, 0x0E7F, "th"),
    (0x3040, 0x30FF, "ja"),
    (0x3400, 0x9FFF, "zh"),
    (0xAC00, 0xD7A3, "ko"),
)

CODE_WORDS = """def elif const printf println struct enum lambda nullptr int str bool void func fn
    impl namespace import return self async await null true false var args kwargs endif typedef"""
DEMANDS = """must exactly least most without except unless ensure only every never always both
    either neither not following constraints requirements step steps given assume suppose"""
CHOICES = (
    b"(A)",
    b"(B)",
    b"\nB)",
    b"\nB.",
    b"\nB:",
    b"\n(2)",
    b" (2)",
    b"Option 2",
    b"ptions:",
    b"hoices:",
)
QUESTION_WORDS = """who whom whose what when where which why how is are was were do does did can
    could"""
FACT_WORDS = "who whom whose when where which"
