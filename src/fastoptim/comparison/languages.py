"""What the comparison shows, in each of its languages; errors are in English."""

from dataclasses import dataclass

__all__ = ["LANGUAGES", "Words"]


@dataclass(frozen=True)
class Words:
    """The words of one language; braces stand for values."""

    optimizer: str
    iteration: str
    """The title of the column of numbers of iterations during training."""
    iterations: str
    loss: str
    last_loss: str
    accuracy: str
    seconds: str
    digits: str
    """The title of scikit-learn's digits."""
    no_mnist: str
    """The same where MNIST is not available."""
    fallback: str
    interrupted: str
    wrote: str
    no_font: str
    """The notice that no font has the characters of this language; empty if every font has them."""


LANGUAGES = {
    "en": Words(
        optimizer="optimizer",
        iteration="iteration",
        iterations="iterations",
        loss="loss",
        last_loss="loss (last {})",
        accuracy="test accuracy",
        seconds="seconds",
        digits="1,797 digits of scikit-learn",
        no_mnist="MNIST is not available: 1,797 digits of scikit-learn",
        fallback="{}; training on the 1,797 digits of scikit-learn",
        interrupted="interrupted: what was computed so far follows",
        wrote="wrote {}",
        no_font="",
    ),
    "zh": Words(
        optimizer="优化器",
        iteration="迭代",
        iterations="迭代次数",
        loss="损失",
        last_loss="损失（最后 {} 次）",
        accuracy="测试准确率",
        seconds="耗时（秒）",
        digits="scikit-learn 的 1,797 个手写数字",
        no_mnist="没有 MNIST，改用 scikit-learn 的 1,797 个手写数字",
        fallback="{}；改用 scikit-learn 的 1,797 个手写数字训练",
        interrupted="训练已中断，以下是目前的结果",
        wrote="已写入 {}",
        no_font="没有找到中文字体，图中文字改用英文。请安装一种，例如 Noto Sans CJK SC，或运行 pip install mplfonts",
    ),
}
