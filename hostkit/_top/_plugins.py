"""The table of all plugins: as many columns as fit, sorted and filtered, the cursor on the same plugin whatever moves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from ._columns import Column, Order, fitting
from ._messages import Changed
from ._rows import Row


class Plugins(DataTable[Text]):
    """A row a plugin."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "app.details", "Details", key_display="⏎"),
        Binding("home", "scroll_top", "First", show=False),
        Binding("end", "scroll_bottom", "Last", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(cursor_type="row", cell_padding=0)
        self.order = Order()
        self.filter = ""
        self._rows: tuple[Row, ...] = ()
        self._shown: list[Column] = []
        self._texts: dict[str, list[Text]] = {}  # in the order in which they are on the screen

    @property
    def selected(self) -> Row | None:
        """The plugin under the cursor."""
        names = list(self._texts)
        if not 0 <= self.cursor_row < len(names):
            return None
        return next(row for row in self._rows if row.name == names[self.cursor_row])

    def show(self, rows: Iterable[Row]) -> None:
        """Show these rows from now on."""
        self._rows = tuple(rows)
        self.lay_out()

    def lay_out(self) -> None:
        """Bring what is on the screen to what is to be shown, by as few changes as it takes."""
        wanted = self.order.sort(row for row in self._rows if self._is_wanted(row))
        columns = fitting(wanted, self.size.width - 1)  # a cell is left to the scroll bar
        texts = {row.name: [_cell(column, row) for column in columns] for row in wanted}
        headings = [_heading(column, self.order) for column in columns]
        if headings != [column.label for column in self.ordered_columns] or list(texts) != list(self._texts):
            self._lay_out_anew(headings, columns, texts)
        else:
            self._update(texts)
        self._shown, self._texts = columns, texts

    def turn(self, order: Order) -> None:
        """Sort by another order."""
        self.order = order
        self.lay_out()
        self.post_message(Changed())

    def next_order(self) -> Order:
        """Return the order by the next column that is shown."""
        return self.order.following(self._shown)

    def _is_wanted(self, row: Row) -> bool:
        words = f"{row.name} {row.mode} {row.status} {row.state} {row.breaker}".casefold()
        return self.filter.casefold() in words

    def _lay_out_anew(self, headings: list[Text], columns: list[Column], texts: dict[str, list[Text]]) -> None:
        row, top = self.selected_name, self.scroll_y
        self.clear(columns=True)
        for number, (heading, column) in enumerate(zip(headings, columns, strict=True)):
            self.add_column(heading, width=column.gap + column.width, key=str(number))
        for name, cells in texts.items():
            self.add_row(*cells, key=name)
        names = list(texts)
        if row in names:
            self.move_cursor(row=names.index(row), scroll=False)
        self.scroll_to(y=top, animate=False, immediate=True)

    def _update(self, texts: dict[str, list[Text]]) -> None:
        for name, cells in texts.items():
            for number, (before, now) in enumerate(zip(self._texts[name], cells, strict=True)):
                if before != now or before.style != now.style:
                    self.update_cell(name, str(number), now)

    @property
    def selected_name(self) -> str:
        """The name under the cursor."""
        names = list(self._texts)
        return names[self.cursor_row] if 0 <= self.cursor_row < len(names) else ""

    def on_resize(self) -> None:
        self.lay_out()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        column = self._shown[event.column_index]
        same = column.heading == self.order.heading
        self.turn(Order(column.heading, turned=same and not self.order.turned))


def _cell(column: Column, row: Row) -> Text:
    return Text(column.text(row), column.style(row), no_wrap=True)


def _heading(column: Column, order: Order) -> Text:
    mark = "" if column.heading != order.heading else "▼" if order.downwards else "▲"
    name = (mark + column.heading).rjust(column.gap + column.width) if column.right else " " * column.gap + (column.heading + mark)
    return Text(name.ljust(column.gap + column.width), "bold underline" if mark else "bold", no_wrap=True)
